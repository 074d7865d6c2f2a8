//! What this machine is: its processor, and how many of its cores this process may use.

use std::fs;
use std::hint::black_box;
use std::path::Path;

use serde::Serialize;

use super::available_cores;
use crate::kernels::Isa;

/// The processor and the cores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Sets of vector instructions that the kernels know, the widest first.
    pub instructions: Vec<String>,
    /// The cores.
    pub cores: Cores,
}

/// How many cores this process may use, and why.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cores {
    /// [`available_cores`].
    pub usable: usize,
    /// Of the whole machine.
    pub online: Option<usize>,
    /// In the affinity mask.
    pub affinity: Option<usize>,
    /// The time that cgroups allow, in cores; none where they set no limit.
    pub quota: Option<f64>,
}

/// What else runs here is noise from this share of the machine's processors on.
const BUSY: f64 = 1.0;

impl Machine {
    /// Asks the system.
    pub fn read() -> Self {
        Self {
            cpu: cpu_name(),
            instructions: Isa::available().iter().map(Isa::to_string).collect(),
            cores: Cores::under(Path::new("/"), available_cores()),
        }
    }

    /// What makes it slower than it need be, for people; `load` is the mean number of running threads.
    pub fn warnings(&self, load: Option<f64>, flushes: bool) -> Vec<String> {
        let mut warnings = self.cores.warnings();
        let slow = match self.instructions.first().map_or("", String::as_str) {
            "avx512" => None,
            "avx2" => Some("No AVX-512: vectors of 8 numbers, and fewer registers, where others have 16."),
            _ => Some("Neither AVX-512 nor AVX2: the kernels run in vectors of 4 numbers."),
        };
        warnings.extend(slow.filter(|_| cfg!(target_arch = "x86_64")).map(str::to_owned));
        let processors = self.cores.online.unwrap_or(self.cores.usable) as f64;
        if let Some(load) = load.filter(|&load| load > BUSY * processors) {
            warnings.push(format!(
                "The machine is busy: {load:.1} threads run on {processors:.0} processors. Measure again when it is quiet."
            ));
        }
        if !flushes {
            let text = "Subnormal numbers are not flushed to zero here: an input that leads to many is answered slowly.";
            warnings.push(text.to_owned());
        }
        warnings
    }
}

impl Cores {
    /// As the files of Linux below `root` say.
    fn under(root: &Path, usable: usize) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).ok();
        let status = text("proc/self/status").unwrap_or_default();
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        Self {
            usable,
            online: text("sys/devices/system/cpu/online").and_then(|list| listed(&list)),
            affinity: mask.and_then(listed),
            quota: quota(root, &text("proc/self/cgroup").unwrap_or_default()),
        }
    }

    /// Where the number comes from, in a line.
    pub fn told(&self) -> String {
        let affinity = self.affinity.map_or_else(
            || "the affinity mask cannot be read".to_owned(),
            |cores| format!("the affinity mask allows {cores}"),
        );
        let quota = self.quota.map_or_else(
            || "no cgroup quota".to_owned(),
            |cores| format!("the cgroup quota {cores:.2}, rounded down"),
        );
        format!("{} ({affinity}, {quota})", self.usable)
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let Some(quota) = self.quota else {
            return warnings;
        };
        if let Some(affinity) = self.affinity.filter(|&cores| quota < cores as f64) {
            warnings.push(format!(
                "The cgroup quota of {quota:.2} cores is below the {affinity} that the affinity mask allows: programs that \
                 count processors start too many threads, and are then stopped together."
            ));
        }
        if quota.fract() > 0.0 {
            warnings.push(format!(
                "The cgroup quota of {quota:.2} is no whole number: the part above {} is left to other threads.",
                self.usable
            ));
        }
        warnings
    }
}

/// The mean number of threads that ran or waited to run in the last minute, on the whole machine.
pub fn load() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// Whether this thread treats subnormal numbers as zero.
pub fn flushes_subnormals() -> bool {
    black_box(f32::MIN_POSITIVE) * black_box(0.5) == 0.0
}

/// The processor's name; the architecture's where the system tells none.
pub(super) fn cpu_name() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    name_in(&text).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn name_in(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    let name = line.split_once(':')?.1.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// How many numbers a list such as `0-3,8` holds.
fn listed(list: &str) -> Option<usize> {
    let count = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.trim().split(',').map(count).sum()
}

/// The least quota of this process's cgroup and those around it, version 2 or 1, in cores.
fn quota(root: &Path, cgroups: &str) -> Option<f64> {
    let quotas = cgroups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let mounted: &[&str] = match controllers {
            "" => &["sys/fs/cgroup"],
            names if names.split(',').any(|name| name == "cpu") => {
                &["sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"]
            }
            _ => &[],
        };
        let around = Path::new(path.trim_start_matches('/')).ancestors();
        let folders =
            around.flat_map(move |group| mounted.iter().map(move |mount| root.join(mount).join(group)));
        folders
            .filter_map(|folder| quota_of(&folder))
            .collect::<Vec<f64>>()
    });
    quotas.min_by(f64::total_cmp)
}

/// `cpu.max` of version 2 (`max 100000`), or the two files of version 1, where no limit is -1.
fn quota_of(group: &Path) -> Option<f64> {
    let text = |name: &str| fs::read_to_string(group.join(name)).ok();
    let (quota, period) = match text("cpu.max") {
        Some(both) => {
            let (quota, period) = both.trim().split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
        None => (text("cpu.cfs_quota_us")?, text("cpu.cfs_period_us")?),
    };
    let (quota, period): (f64, f64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::atomic;

    /// A system's files.
    fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            atomic::write(&path, text.as_bytes()).unwrap();
        }
        root
    }

    #[test]
    fn the_least_quota_of_a_group_and_those_around_it_holds() {
        let check = |files_of: &[(&str, &str)], expected: Option<f64>| {
            let root = files(files_of);
            assert_eq!(Cores::under(root.path(), 1).quota, expected, "{files_of:?}");
        };
        let two = ("proc/self/cgroup", "0::/a/b\n");
        check(&[two], None);
        check(&[two, ("sys/fs/cgroup/cpu.max", "max 100000\n")], None);
        check(
            &[two, ("sys/fs/cgroup/a/b/cpu.max", "250000 100000\n")],
            Some(2.5),
        );
        let both = [
            two,
            ("sys/fs/cgroup/a/b/cpu.max", "250000 100000\n"),
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/c/cpu.max", "50000 100000\n"),
        ];
        check(&both, Some(1.5));
        check(&[two, ("sys/fs/cgroup/a/cpu.max", "what is this\n")], None);
        let one = ("proc/self/cgroup", "4:memory:/\n3:cpu,cpuacct:/docker/x\n");
        let (quota, period) = ("cpu.cfs_quota_us", "cpu.cfs_period_us");
        let of = |name| format!("sys/fs/cgroup/cpu,cpuacct/docker/x/{name}");
        check(
            &[one, (&of(quota), "50000\n"), (&of(period), "100000\n")],
            Some(0.5),
        );
        check(&[one, (&of(quota), "-1\n"), (&of(period), "100000\n")], None);
    }

    #[test]
    fn lists_of_processors_are_counted() {
        let check = |list: &str, expected| assert_eq!(listed(list), expected, "{list}");
        check("0\n", Some(1));
        check("\t0-3,8,10-11\n", Some(7));
        check("", None);
        check("3-1", None);
        let root = files(&[
            ("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-2\n"),
            ("sys/devices/system/cpu/online", "0-7\n"),
        ]);
        let cores = Cores::under(root.path(), 3);
        assert_eq!(
            (cores.affinity, cores.online, cores.quota),
            (Some(3), Some(8), None)
        );
        assert_eq!(cores.told(), "3 (the affinity mask allows 3, no cgroup quota)");
    }

    #[test]
    fn the_name_is_the_first_that_is_told() {
        assert_eq!(
            name_in("processor : 0\nmodel name\t: A B\nmodel name\t: C\n").as_deref(),
            Some("A B")
        );
        assert_eq!(name_in("CPU part : 0xd0c\n"), None);
        assert!(!Machine::read().cpu.is_empty());
    }

    #[test]
    fn a_warning_names_what_is_wrong() {
        let machine = |instructions: &str, affinity, quota| Machine {
            cpu: "x".to_owned(),
            instructions: vec![instructions.to_owned()],
            cores: Cores {
                usable: 2,
                online: Some(8),
                affinity: Some(affinity),
                quota,
            },
        };
        let check = |machine: &Machine, (load, flushes), expected: &[&str]| {
            let warnings = machine.warnings(Some(load), flushes);
            assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
            for (warning, part) in warnings.iter().zip(expected) {
                assert!(warning.contains(part), "'{part}' is not in: {warning}");
            }
        };
        check(&machine("avx512", 2, None), (8.0, true), &[]);
        check(&machine("avx512", 2, Some(2.0)), (0.0, true), &[]);
        check(
            &machine("avx512", 4, Some(2.5)),
            (8.1, false),
            &[
                "2.50 cores is below the 4",
                "no whole number",
                "8.1 threads",
                "Subnormal",
            ],
        );
        if cfg!(target_arch = "x86_64") {
            check(&machine("avx2", 2, None), (0.0, true), &["No AVX-512"]);
            check(&machine("portable", 2, None), (0.0, true), &["nor AVX2"]);
        }
    }

    #[test]
    fn a_prepared_thread_flushes_where_it_can() {
        let prepared = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, || {
                super::super::prepare_thread();
                flushes_subnormals()
            });
            thread.unwrap().join().unwrap()
        });
        let can = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
        assert_eq!(prepared, can);
    }
}
