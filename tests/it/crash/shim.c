//! A library that a program is started with (LD_PRELOAD): it counts the program's calls that change what lies under a
//! folder, and lets one of them go wrong.
//!
//! CRASH_FOLDER   the folder, as an absolute path without links
//! CRASH_CONTROL  a file of four 64-bit numbers, shared with whoever plans the fault:
//!                what goes wrong (below), at which call (from 0), calls so far, calls that went wrong
//! CRASH_LOG      a file that gets a line for each call: its name, the path, and what went wrong, if it did
//!
//! Calls are counted over all threads and child processes. What goes wrong is looked up anew at each call, so that a disk
//! may be healed while the program runs. Memory that is mapped and written (SQLite's -shm) is no call and cannot fail here.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum fault {
    NONE,   // only count
    KILL,   // the process dies in place of the call
    TORN,   // the process dies after the call; of a write, after half of it
    FULL,   // the call fails with ENOSPC, and so does each one after it that needs room
    SHORT,  // a write is cut in half, and each call after it that needs room fails with ENOSPC
    EIO_AT, // the call fails with EIO
    BROKEN, // the call fails with EIO, and so does each one after it
};

struct control {
    uint64_t fault, at, calls, failed;
};

static struct control *control;
static const char *folder;
static size_t folder_length;
static int log_file = -1;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CRASH_CONTROL"), *log = getenv("CRASH_LOG");
    folder = getenv("CRASH_FOLDER");
    if (path == NULL || folder == NULL || log == NULL)
        return;
    folder_length = strlen(folder);
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    log_file = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file < 0 || log_file < 0 || mapped == MAP_FAILED) {
        static const char told[] = "the crash shim cannot use its files\n";
        syscall(SYS_write, 2, told, sizeof told - 1);
        _exit(71);
    }
    syscall(SYS_close, file);
    control = mapped;
}

// What the program's call would have been without this library.
#define REAL(name) \
    static __typeof__(&name) real; \
    if (real == NULL) \
        real = (__typeof__(real))dlsym(RTLD_NEXT, #name)

static int is_under(const char *path) {
    return strncmp(path, folder, folder_length) == 0 && (path[folder_length] == '/' || path[folder_length] == 0);
}

// The path of an open file; false where it is none of the folder's.
static int path_of(int file, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return is_under(path);
}

// The whole path of `name` in `at`; false where it is none of the folder's.
static int path_at(int at, const char *name, char path[PATH_MAX]) {
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
    } else {
        char above[PATH_MAX];
        char link[64];
        if (at == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, above, PATH_MAX - 1);
        if (length <= 0)
            return 0;
        above[length] = 0;
        // A path that is too long is refused by the call itself.
        if (snprintf(path, PATH_MAX, "%s/%s", above, name) >= PATH_MAX)
            return 0;
    }
    return is_under(path);
}

static void told(const char *call, const char *path, const char *what) {
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s\t%s\t%s\n", call, path + folder_length, what);
    syscall(SYS_write, log_file, line, length < (int)sizeof line ? (size_t)length : sizeof line);
}

static _Noreturn void die(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

// What becomes of a call.
enum fate { DONE, DONE_THEN_DIES, HALF, HALF_THEN_DIES, FAILS };

// Counts a call on `path` and says what becomes of it; sets errno where it fails. `size` is of what it writes, if it writes.
static enum fate fate(const char *call, const char *path, int needs_room, size_t size) {
    uint64_t at = __atomic_load_n(&control->at, __ATOMIC_SEQ_CST);
    uint64_t number = __atomic_fetch_add(&control->calls, 1, __ATOMIC_SEQ_CST);
    uint64_t fault = __atomic_load_n(&control->fault, __ATOMIC_SEQ_CST);
    int is_it = number == at, is_after = number > at;
    const char *what = "";
    enum fate fate = DONE;
    switch (fault) {
    case KILL:
        if (is_it) {
            told(call, path, "killed");
            __atomic_fetch_add(&control->failed, 1, __ATOMIC_SEQ_CST);
            die();
        }
        break;
    case TORN:
        if (is_it)
            fate = size > 1 ? HALF_THEN_DIES : DONE_THEN_DIES, what = "torn";
        break;
    case FULL:
        if (is_it || (is_after && needs_room))
            fate = FAILS, errno = ENOSPC, what = "ENOSPC";
        break;
    case SHORT:
        if (is_it && size > 1)
            fate = HALF, what = "short";
        else if ((is_it || is_after) && needs_room)
            fate = FAILS, errno = ENOSPC, what = "ENOSPC";
        break;
    case EIO_AT:
        if (is_it)
            fate = FAILS, errno = EIO, what = "EIO";
        break;
    case BROKEN:
        if (is_it || is_after)
            fate = FAILS, errno = EIO, what = "EIO";
        break;
    default:
        break;
    }
    if (fate != DONE)
        __atomic_fetch_add(&control->failed, 1, __ATOMIC_SEQ_CST);
    int before = errno;
    told(call, path, what);
    errno = before;
    return fate;
}

// A call that does its work or does not; `done` is the work.
#define WHOLE(call, path, needs_room, done) \
    switch (fate(call, path, needs_room, 0)) { \
    case FAILS: \
        return -1; \
    case DONE_THEN_DIES: { \
        (void)!(done); \
        die(); \
    } \
    default: \
        return done; \
    }

// A call that writes `size` bytes; `of(n)` writes the first n of them.
#define SIZED(call, path, size, of) \
    switch (fate(call, path, 1, size)) { \
    case FAILS: \
        return -1; \
    case DONE_THEN_DIES: { \
        (void)!of(size); \
        die(); \
    } \
    case HALF_THEN_DIES: { \
        (void)!of((size) / 2); \
        die(); \
    } \
    case HALF: \
        return of((size) / 2); \
    default: \
        return of(size); \
    }

ssize_t write(int file, const void *bytes, size_t size) {
    REAL(write);
    char path[PATH_MAX];
#define OF(n) real(file, bytes, n)
    if (control == NULL || !path_of(file, path))
        return OF(size);
    SIZED("write", path, size, OF)
#undef OF
}

#define PWRITE(name, offset_type) \
    ssize_t name(int file, const void *bytes, size_t size, offset_type offset) { \
        REAL(name); \
        char path[PATH_MAX]; \
        if (control == NULL || !path_of(file, path)) \
            return real(file, bytes, size, offset); \
        SIZED("pwrite", path, size, PWRITE_OF) \
    }
#define PWRITE_OF(n) real(file, bytes, n, offset)
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

// Half of a vectored write is its first buffers, the last of them cut.
static size_t size_of(const struct iovec *parts, int count) {
    size_t size = 0;
    for (int part = 0; part < count; part++)
        size += parts[part].iov_len;
    return size;
}

static int first_of(struct iovec *some, const struct iovec *parts, int count, size_t size) {
    int taken = 0;
    for (; taken < count && size > 0; taken++) {
        some[taken] = parts[taken];
        if (some[taken].iov_len > size)
            some[taken].iov_len = size;
        size -= some[taken].iov_len;
    }
    return taken;
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(writev);
    char path[PATH_MAX];
    if (control == NULL || count > 1024 || !path_of(file, path))
        return real(file, parts, count);
    struct iovec some[1024];
#define OF(n) real(file, some, first_of(some, parts, count, n))
    SIZED("writev", path, size_of(parts, count), OF)
#undef OF
}

#define PWRITEV(name, offset_type) \
    ssize_t name(int file, const struct iovec *parts, int count, offset_type offset) { \
        REAL(name); \
        char path[PATH_MAX]; \
        if (control == NULL || count > 1024 || !path_of(file, path)) \
            return real(file, parts, count, offset); \
        struct iovec some[1024]; \
        SIZED("pwritev", path, size_of(parts, count), PWRITEV_OF) \
    }
#define PWRITEV_OF(n) real(file, some, first_of(some, parts, count, n), offset)
PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)

#define OF_FILE(name, needs_room, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        char path[PATH_MAX]; \
        if (control == NULL || !path_of(file, path)) \
            return real arguments; \
        WHOLE(#name, path, needs_room, real arguments) \
    }
static int grows(int file, off64_t length) {
    struct stat found;
    return fstat(file, &found) == 0 && length > found.st_size;
}

OF_FILE(fsync, 0, (int file), (file))
OF_FILE(fdatasync, 0, (int file), (file))
OF_FILE(ftruncate, grows(file, length), (int file, off_t length), (file, length))
OF_FILE(ftruncate64, grows(file, length), (int file, off64_t length), (file, length))
OF_FILE(fallocate, 1, (int file, int mode, off_t from, off_t length), (file, mode, from, length))
OF_FILE(fallocate64, 1, (int file, int mode, off64_t from, off64_t length), (file, mode, from, length))
OF_FILE(fchmod, 0, (int file, mode_t mode), (file, mode))

#define OF_PATH(name, needs_room, at, sought, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        char path[PATH_MAX]; \
        if (control == NULL || !path_at(at, sought, path)) \
            return real arguments; \
        WHOLE(#name, path, needs_room, real arguments) \
    }
OF_PATH(rename, 0, AT_FDCWD, to, (const char *from, const char *to), (from, to))
OF_PATH(renameat, 0, at_to, to, (int at, const char *from, int at_to, const char *to), (at, from, at_to, to))
OF_PATH(renameat2, 0, at_to, to, (int at, const char *from, int at_to, const char *to, unsigned flags),
        (at, from, at_to, to, flags))
OF_PATH(unlink, 0, AT_FDCWD, name, (const char *name), (name))
OF_PATH(unlinkat, 0, at, name, (int at, const char *name, int flags), (at, name, flags))
OF_PATH(rmdir, 0, AT_FDCWD, name, (const char *name), (name))
OF_PATH(mkdir, 1, AT_FDCWD, name, (const char *name, mode_t mode), (name, mode))
OF_PATH(mkdirat, 1, at, name, (int at, const char *name, mode_t mode), (at, name, mode))
OF_PATH(link, 1, AT_FDCWD, to, (const char *from, const char *to), (from, to))
OF_PATH(linkat, 1, at_to, to, (int at, const char *from, int at_to, const char *to, int flags),
        (at, from, at_to, to, flags))
OF_PATH(symlink, 1, AT_FDCWD, to, (const char *from, const char *to), (from, to))
OF_PATH(chmod, 0, AT_FDCWD, name, (const char *name, mode_t mode), (name, mode))
OF_PATH(fchmodat, 0, at, name, (int at, const char *name, mode_t mode, int flags), (at, name, mode, flags))
OF_PATH(truncate, 1, AT_FDCWD, name, (const char *name, off_t length), (name, length))
OF_PATH(truncate64, 1, AT_FDCWD, name, (const char *name, off64_t length), (name, length))

// Opening changes something only where it makes a file or empties one.
static int changes(const char *path, int flags) {
    struct stat found;
    int exists = syscall(SYS_newfstatat, AT_FDCWD, path, &found, 0) == 0;
    return ((flags & O_CREAT) != 0 && !exists) || ((flags & O_TRUNC) != 0 && exists);
}

static mode_t mode_of(int flags, va_list rest) {
    return (flags & (O_CREAT | __O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
}

#define OPENS(name, sought_at, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = mode_of(flags, rest); \
        va_end(rest); \
        char path[PATH_MAX]; \
        if (control == NULL || !path_at(sought_at, sought, path) || !changes(path, flags)) \
            return real arguments; \
        WHOLE("create", path, 1, real arguments) \
    }
OPENS(open, AT_FDCWD, (const char *sought, int flags, ...), (sought, flags, mode))
OPENS(open64, AT_FDCWD, (const char *sought, int flags, ...), (sought, flags, mode))
OPENS(openat, at, (int at, const char *sought, int flags, ...), (at, sought, flags, mode))
OPENS(openat64, at, (int at, const char *sought, int flags, ...), (at, sought, flags, mode))
