//! A disk that fails where a test says, for a program that is started on it. It fails by `shim.c`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

/// What goes wrong; the numbers are those of the shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process dies in place of the call.
    Kill = 1,
    /// The process dies after half of a write.
    Torn,
    /// The disk is full from this call on.
    Full,
    /// The disk is full from the second half of a write on.
    Short,
    /// The call fails with EIO.
    Eio,
    /// The call and all after it fail with EIO.
    Broken,
}

/// Those that the program does not outlive.
pub(super) const KILLS: [Fault; 2] = [Fault::Kill, Fault::Torn];
/// Those of which it has to tell.
pub(super) const ERRORS: [Fault; 4] = [Fault::Full, Fault::Short, Fault::Eio, Fault::Broken];

/// A call that changes what lies in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    /// Inside the folder.
    pub(super) path: String,
    /// What went wrong with it.
    pub(super) failed: String,
}

/// What lies in `folder`, for programs that get its environment.
pub(super) struct Disk {
    folder: PathBuf,
    control: File,
    files: TempDir,
}

/// The compiled shim.
static SHIM: LazyLock<PathBuf> = LazyLock::new(|| {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/crash/shim.c");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Two runs at once do not meet in it.
    let beside = folder.join(format!("crash-{}.so", std::process::id()));
    let compiled = Command::new("cc")
        .args(["-O1", "-Wall", "-shared", "-fPIC", "-o"])
        .args([&beside, &source])
        .arg("-ldl")
        .output()
        .expect("a C compiler, which building the program needs too");
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    let library = folder.join("crash.so");
    fs::rename(&beside, &library).unwrap();
    library
});

impl Fault {
    /// Whether the program is gone afterwards.
    pub(super) fn kills(self) -> bool {
        KILLS.contains(&self)
    }

    /// Whether it is another fault than those before it: only writes can be cut in half.
    pub(super) fn differs_at(self, call: &Call) -> bool {
        !matches!(self, Self::Torn | Self::Short) || call.name.contains("write")
    }
}

impl Disk {
    /// Whole at first.
    pub(super) fn new(folder: &Path) -> Self {
        let files = super::folder();
        let path = files.path().join("control");
        let control = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let disk = Self {
            folder: fs::canonicalize(folder).unwrap(),
            control: control.unwrap(),
            files,
        };
        disk.heal();
        disk
    }

    /// Lets a program run on it.
    pub(super) fn under<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("LD_PRELOAD", &*SHIM)
            .env("CRASH_FOLDER", &self.folder)
            .env("CRASH_CONTROL", self.files.path().join("control"))
            .env("CRASH_LOG", self.log())
    }

    /// From now on counts anew, and fails at call `at`.
    pub(super) fn plan(&self, fault: Fault, at: usize) {
        // Harmless until the last number is written.
        self.heal();
        for (place, number) in [(1, at as u64), (2, 0), (3, 0), (0, fault as u64)] {
            self.put(place, number);
        }
    }

    /// Nothing fails any more. Counts anew.
    pub(super) fn heal(&self) {
        (0..4).for_each(|place| self.put(place, 0));
        File::create(self.log()).unwrap();
    }

    /// How many calls failed, or killed, since the plan.
    pub(super) fn failed(&self) -> u64 {
        let mut number = [0; 8];
        self.control.read_exact_at(&mut number, 3 * 8).unwrap();
        u64::from_ne_bytes(number)
    }

    /// Every call since the plan, or since all was well.
    pub(super) fn calls(&self) -> Vec<Call> {
        let text = fs::read_to_string(self.log()).unwrap();
        let call = |line: &str| {
            let mut parts = line.split('\t').map(str::to_owned);
            let mut part = || parts.next().unwrap();
            Call {
                name: part(),
                path: part(),
                failed: part(),
            }
        };
        text.lines().map(call).collect()
    }

    fn put(&self, place: u64, number: u64) {
        self.control
            .write_all_at(&number.to_ne_bytes(), place * 8)
            .unwrap();
    }

    fn log(&self) -> PathBuf {
        self.files.path().join("log")
    }
}
