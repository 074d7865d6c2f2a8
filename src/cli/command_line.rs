//! The command line as the manifest tells it.

/// The command that gives the same weights again: the program by its name, each argument as it was typed, quoted for a
/// shell where it must be. `--resume` is left out: a run that was interrupted ends in the same bits as one that was not.
pub(crate) fn text(arguments: impl Iterator<Item = String>) -> String {
    let typed = arguments.skip(1).filter(|argument| argument != "--resume");
    let words = std::iter::once("sconce".to_owned()).chain(typed.map(quoted));
    words.collect::<Vec<_>>().join(" ")
}

fn quoted(argument: String) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_run_again() {
        let check = |arguments: &[&str], expected: &str| {
            assert_eq!(text(arguments.iter().map(|&a| a.to_owned())), expected);
        };
        check(
            &[
                "/opt/bin/sconce",
                "train",
                "--resume",
                "--data=d/mnist",
                "--seed",
                "7",
            ],
            "sconce train --data=d/mnist --seed 7",
        );
        check(
            &["sconce", "train", "--data", "my 'best' data", ""],
            r"sconce train --data 'my '\''best'\'' data' ''",
        );
    }
}
