/* Makes the n-th call of one kind that the station makes to the world fail, or hang: loaded before the C library.
 *
 * Calls are counted by kind from `arm` on. Files count where they lie in the station's own folder, or are its output;
 * sockets where they are TCP: ZeroMQ's and Python's inner pipes are no part of the world. The pin is the dry gate's
 * record and what is told to the process that closes it. What a failing call returns is
 * what the manuals say of a broken disk (EIO), a lost connection (ECONNRESET), an interrupted wait (EINTR) and, for the
 * wall clock, a year's jump.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { PIN, FILES, DATABASE, SOCKETS, WAITS, CLOCK, WALL, ENGINE, CAMERA, KINDS }; /* strike.py has the same */
enum { FAILS = 1, HANGS = 2 };
enum { YEAR_S = 31536000 };

enum { SITES = 500, SITE_BYTES = 112 };

/* A place in the program that reads the monotonic clock. */
struct site {
    char name[SITE_BYTES];
    long count;
};

/* Shared with the process that watches: what was counted and what was struck outlives us. strike.py reads it. */
struct record {
    atomic_long counted[KINDS];
    atomic_long struck_ns; /* monotonic; 0: the call never came */
    char what[160];
    struct site sites[SITES];
};

static struct record *record;
static _Atomic int is_armed, jumped;
static int struck_kind, manner;
static long struck_at, hang_ms;
static char folder[1024], struck_site[SITE_BYTES];

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }
#define REAL(name) \
    static __typeof__(name) *next; \
    if (!next) next = (__typeof__(name) *)real(#name)

void arm(struct record *shared, int kind, long at, int how, long milliseconds, const char *station, const char *site) {
    record = shared;
    snprintf(struck_site, sizeof struck_site, "%s", site);
    struck_kind = kind, struck_at = at, manner = how, hang_ms = milliseconds;
    snprintf(folder, sizeof folder, "%s", station);
    is_armed = 1;
}

static void hang(void) {
    static int (*sleep_for)(clockid_t, int, const struct timespec *, struct timespec *);
    if (!sleep_for) sleep_for = (__typeof__(sleep_for))real("clock_nanosleep");
    struct timespec rest = {hang_ms / 1000, hang_ms % 1000 * 1000000};
    while (sleep_for(CLOCK_MONOTONIC, 0, &rest, &rest) == EINTR) {}
}

static long now_ns(void) {
    static int (*read_clock)(clockid_t, struct timespec *);
    if (!read_clock) read_clock = (__typeof__(read_clock))real("clock_gettime");
    struct timespec now;
    read_clock(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

static int strike(const char *call, const char *object) {
    snprintf(record->what, sizeof record->what, "%s %.140s", call, object);
    atomic_store(&record->struck_ns, now_ns());
    if (manner == HANGS) hang();
    return manner == FAILS;
}

/* Whether this call is to fail; one that is to hang hangs here. */
static int strikes(enum kind kind, const char *call, const char *object) {
    if (!is_armed) return 0;
    const long number = atomic_fetch_add(&record->counted[kind], 1) + 1;
    return (int)kind == struck_kind && number == struck_at && strike(call, object);
}

/* For nursery.py, around each call of an engine and of the camera: those are no calls of the C library. */
int strikes_engine(const char *name) { return strikes(ENGINE, "infer", name); }
int strikes_camera(const char *name) { return strikes(CAMERA, "read", name); }

static int is_pin(const char *path) { return strstr(path, "gate.jsonl") != 0; }
static int is_database(const char *path) { return strstr(path, ".sqlite") != 0; }

static int strikes_path(const char *call, const char *path) {
    if (!is_armed || !path || strncmp(path, folder, strlen(folder))) return 0;
    const enum kind kind = is_pin(path) ? PIN : is_database(path) ? DATABASE : FILES;
    return strikes(kind, call, path + strlen(folder));
}

static int strikes_fd(const char *call, int fd) {
    if (!is_armed) return 0;
    char link[64], path[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return strikes_path(call, path);
}

static int is_closer(int fd) {
    int type = 0;
    socklen_t size = sizeof type;
    return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) && type == SOCK_SEQPACKET;
}

static int strikes_socket(const char *call, int fd) {
    int domain = 0;
    socklen_t size = sizeof domain;
    if (!is_armed || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size)) return 0;
    if (domain == AF_UNIX) return is_closer(fd) && strikes(PIN, call, "the process that closes");
    return (domain == AF_INET || domain == AF_INET6) && strikes(SOCKETS, call, "TCP");
}

#define FAIL(number) return errno = (number), -1

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list more; \
        va_start(more, flags); \
        const mode_t mode = va_arg(more, mode_t); \
        va_end(more); \
        if (strikes_path("open", path)) FAIL(EIO); \
        return next(path, flags, mode); \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name) \
    int name(int at, const char *path, int flags, ...) { \
        REAL(name); \
        va_list more; \
        va_start(more, flags); \
        const mode_t mode = va_arg(more, mode_t); \
        va_end(more); \
        if (strikes_path("open", path)) FAIL(EIO); \
        return next(at, path, flags, mode); \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

#define MOVES(type, name, fd_fails, PARAMETERS, ARGUMENTS) \
    type name PARAMETERS { \
        REAL(name); \
        if (fd_fails(#name, fd)) FAIL(fd_fails == strikes_fd ? EIO : ECONNRESET); \
        return next ARGUMENTS; \
    }

static int strikes_either(const char *call, int fd) {
    struct stat about;
    if (!is_armed || fstat(fd, &about)) return 0;
    return S_ISSOCK(about.st_mode) ? strikes_socket(call, fd) : strikes_fd(call, fd);
}

MOVES(ssize_t, read, strikes_either, (int fd, void *to, size_t size), (fd, to, size))
MOVES(ssize_t, write, strikes_either, (int fd, const void *from, size_t size), (fd, from, size))
MOVES(ssize_t, writev, strikes_either, (int fd, const struct iovec *from, int count), (fd, from, count))
MOVES(ssize_t, pread, strikes_fd, (int fd, void *to, size_t size, off_t at), (fd, to, size, at))
MOVES(ssize_t, pread64, strikes_fd, (int fd, void *to, size_t size, off64_t at), (fd, to, size, at))
MOVES(ssize_t, pwrite, strikes_fd, (int fd, const void *from, size_t size, off_t at), (fd, from, size, at))
MOVES(ssize_t, pwrite64, strikes_fd, (int fd, const void *from, size_t size, off64_t at), (fd, from, size, at))
MOVES(int, fsync, strikes_fd, (int fd), (fd))
MOVES(int, fdatasync, strikes_fd, (int fd), (fd))
MOVES(int, ftruncate, strikes_fd, (int fd, off_t size), (fd, size))
MOVES(int, ftruncate64, strikes_fd, (int fd, off64_t size), (fd, size))
MOVES(ssize_t, send, strikes_socket, (int fd, const void *from, size_t size, int flags), (fd, from, size, flags))
MOVES(ssize_t, sendmsg, strikes_socket, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
MOVES(ssize_t, recv, strikes_socket, (int fd, void *to, size_t size, int flags), (fd, to, size, flags))
MOVES(ssize_t, recvmsg, strikes_socket, (int fd, struct msghdr *message, int flags), (fd, message, flags))
MOVES(int, connect, strikes_socket, (int fd, const struct sockaddr *to, socklen_t size), (fd, to, size))
MOVES(int, bind, strikes_socket, (int fd, const struct sockaddr *to, socklen_t size), (fd, to, size))
MOVES(int, listen, strikes_socket, (int fd, int waiting), (fd, waiting))

int rename(const char *from, const char *to) {
    REAL(rename);
    if (strikes_path("rename", from)) FAIL(EIO);
    return next(from, to);
}

int unlink(const char *path) {
    REAL(unlink);
    if (strikes_path("unlink", path)) FAIL(EIO);
    return next(path);
}

int poll(struct pollfd *fds, nfds_t count, int timeout_ms) {
    REAL(poll);
    if (strikes(WAITS, "poll", "")) FAIL(EINTR);
    return next(fds, count, timeout_ms);
}

int epoll_wait(int fd, struct epoll_event *events, int most, int timeout_ms) {
    REAL(epoll_wait);
    if (strikes(WAITS, "epoll_wait", "")) FAIL(EINTR);
    return next(fd, events, most, timeout_ms);
}

typedef struct _object PyObject;

/* Python's own, where it is loaded: the functions and lines that read the clock, the innermost first. */
static struct {
    int (*holds_lock)(void);
    PyObject *(*frame)(void), *(*back)(PyObject *), *(*code)(PyObject *), *(*get)(PyObject *, const char *);
    int (*line)(PyObject *);
    const char *(*text)(PyObject *);
    void (*drop)(PyObject *);
} python;

static int find_python(void) {
    if (python.drop) return 1;
    python.holds_lock = (__typeof__(python.holds_lock))dlsym(RTLD_DEFAULT, "PyGILState_Check");
    python.frame = (__typeof__(python.frame))dlsym(RTLD_DEFAULT, "PyEval_GetFrame");
    python.back = (__typeof__(python.back))dlsym(RTLD_DEFAULT, "PyFrame_GetBack");
    python.code = (__typeof__(python.code))dlsym(RTLD_DEFAULT, "PyFrame_GetCode");
    python.get = (__typeof__(python.get))dlsym(RTLD_DEFAULT, "PyObject_GetAttrString");
    python.line = (__typeof__(python.line))dlsym(RTLD_DEFAULT, "PyFrame_GetLineNumber");
    python.text = (__typeof__(python.text))dlsym(RTLD_DEFAULT, "PyUnicode_AsUTF8");
    python.drop = (__typeof__(python.drop))dlsym(RTLD_DEFAULT, "Py_DecRef");
    return python.drop != 0;
}

/* "turn:49 _run:115 work:120", or what is no Python's. */
static void name_site(char *name) {
    strcpy(name, "a library");
    if (!find_python() || !python.holds_lock()) return;
    PyObject *frame = python.frame();
    size_t length = 0;
    for (int depth = 0; frame && depth < 3; depth++) {
        PyObject *code = python.code(frame), *function = python.get(code, "co_name");
        length += (size_t)snprintf(name + length, SITE_BYTES - length, "%.30s:%d ", python.text(function),
                                   python.line(frame));
        python.drop(function), python.drop(code);
        PyObject *outer = python.back(frame);
        if (depth) python.drop(frame); /* the first one is only lent */
        frame = outer;
    }
    if (frame) python.drop(frame);
    if (length) name[strlen(name) - 1] = 0; /* the last space */
}

/* One thread at a time has Python's lock; what the others count may be off by one now and then. */
static int strikes_clock(void) {
    static _Thread_local int is_inside;
    if (!is_armed || is_inside) return 0;
    is_inside = 1;
    char name[SITE_BYTES];
    name_site(name);
    is_inside = 0;
    atomic_fetch_add(&record->counted[CLOCK], 1);
    struct site *site = record->sites;
    while (site < record->sites + SITES - 1 && site->name[0] && strcmp(site->name, name)) site++;
    if (!site->name[0]) strcpy(site->name, name);
    const long number = ++site->count;
    return struck_kind == CLOCK && number == struck_at && !strcmp(name, struck_site) && strike("clock at", name);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    const int is_wall = clock == CLOCK_REALTIME;
    if (is_wall && strikes(WALL, "clock_gettime", "wall")) jumped = 1;
    if (clock == CLOCK_MONOTONIC) strikes_clock();
    const int result = next(clock, now);
    if (jumped && is_wall) now->tv_sec += YEAR_S;
    return result;
}
