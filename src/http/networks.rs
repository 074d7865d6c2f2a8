//! Lists of networks, as configured: `10.0.0.0/8 2001:db8::/32 192.0.2.7`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Addresses and networks; none where the text is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Networks(Vec<Network>);

/// Every address with these leading bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Networks {
    /// Whether the address lies in one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whether there are none.
    pub fn are_none(&self) -> bool {
        self.0.is_empty()
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        let same_kind = self.address.is_ipv4() == address.is_ipv4();
        same_kind && prefix(self.address, self.bits) == prefix(address, self.bits)
    }
}

/// The leading bits of an address, the rest 0.
pub(super) fn prefix(address: IpAddr, bits: u32) -> u128 {
    let (number, length) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let rest = 128u32.min(length - bits.min(length));
    number
        .checked_shr(rest)
        .and_then(|kept| kept.checked_shl(rest))
        .unwrap_or(0)
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no address and no network such as 10.0.0.0/8");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let length = if address.is_ipv4() { 32 } else { 128 };
        match bits.unwrap_or(length) {
            bits if bits <= length => Ok(Self { address, bits }),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Networks {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl From<Networks> for String {
    fn from(networks: Networks) -> Self {
        networks.to_string()
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, Network { address, bits }) in self.0.iter().enumerate() {
            let space = if place == 0 { "" } else { " " };
            write!(f, "{space}{address}/{bits}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_lies_in_a_network_of_its_kind() {
        let check = |networks: &str, address: &str, expected: bool| {
            let parsed = Networks::try_from(networks.to_owned()).unwrap();
            assert_eq!(
                parsed.contain(address.parse().unwrap()),
                expected,
                "{networks} {address}"
            );
            assert_eq!(Networks::try_from(parsed.to_string()), Ok(parsed), "{networks}");
        };
        check("", "10.0.0.1", false);
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.1.2.3", "10.1.2.3", true);
        check("10.1.2.3", "10.1.2.4", false);
        check("0.0.0.0/0", "200.1.1.1", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "2001:db8::1", true);
        check("192.0.2.0/31  2001:db8::/32", "2001:db8:1::7", true);
        check("2001:db8::/33", "2001:db8:8000::", false);
    }

    #[test]
    fn what_is_no_network_is_told() {
        for wrong in [
            "a",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0/8",
            "::/129",
            "10.0.0.1,10.0.0.2",
        ] {
            let error = Networks::try_from(wrong.to_owned()).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }
}
