/* Runs code of a library on a file system (FUSE) that it serves itself, from a mount namespace of its own, so that nothing of it
 * stays. Once it is hot, the file system takes requests and answers none: who opens the library then cannot even be killed
 * until the server has ended. Arguments: the library's file, and an empty folder. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common.h"

static const char NAME[] = "deaf.so";
static char *content;
static size_t size;
static volatile sig_atomic_t deaf;

static void go_deaf(int signal) { deaf = signal; }

static void check(int is_good, const char *what) {
    if (is_good) return;
    perror(what);
    exit(1);
}

static struct fuse_attr attributes(uint64_t node) {
    struct fuse_attr made = {.ino = node, .nlink = 1, .blksize = 4096};
    made.mode = node == 1 ? S_IFDIR | 0755 : S_IFREG | 0755;
    made.size = node == 1 ? 0 : size;
    return made;
}

static void answer(int device, uint64_t request, int error, const void *bytes, size_t length) {
    static char buffer[1 << 18];
    struct fuse_out_header head = {.len = sizeof head + length, .error = -error, .unique = request};
    memcpy(buffer, &head, sizeof head);
    if (length) memcpy(buffer + sizeof head, bytes, length);
    if (write(device, buffer, head.len) < 0 && errno != ENOENT) exit(1);
}

static void serve(int device) {
    static char buffer[1 << 18];
    for (;;) {
        ssize_t count = read(device, buffer, sizeof buffer);
        if (count < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN)) continue;
        if (count <= 0) exit(0);
        const struct fuse_in_header *head = (const void *)buffer;
        const void *body = buffer + sizeof *head;
        if (deaf || head->opcode == FUSE_FORGET || head->opcode == FUSE_INTERRUPT || head->opcode == FUSE_BATCH_FORGET) continue;
        switch (head->opcode) {
        case FUSE_INIT: {
            struct fuse_init_out made = {.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION, .max_write = 4096};
            answer(device, head->unique, 0, &made, sizeof made);
            break;
        }
        case FUSE_LOOKUP: {
            struct fuse_entry_out made = {.nodeid = 2, .entry_valid = 3600, .attr_valid = 3600, .attr = attributes(2)};
            answer(device, head->unique, strcmp(body, NAME) ? ENOENT : 0, &made, strcmp(body, NAME) ? 0 : sizeof made);
            break;
        }
        case FUSE_GETATTR: {
            struct fuse_attr_out made = {.attr_valid = 3600, .attr = attributes(head->nodeid)};
            answer(device, head->unique, 0, &made, sizeof made);
            break;
        }
        case FUSE_OPEN: {
            struct fuse_open_out made = {.open_flags = FOPEN_KEEP_CACHE};
            answer(device, head->unique, 0, &made, sizeof made);
            break;
        }
        case FUSE_READ: {
            const struct fuse_read_in *wanted = body;
            size_t from = wanted->offset < size ? wanted->offset : size;
            size_t length = wanted->size < size - from ? wanted->size : size - from;
            answer(device, head->unique, 0, content + from, length);
            break;
        }
        case FUSE_FLUSH:
        case FUSE_RELEASE: answer(device, head->unique, 0, NULL, 0); break;
        default: answer(device, head->unique, ENOSYS, NULL, 0);
        }
    }
}

__attribute__((noinline)) void own_work(void) { BURN_MS(10); sink++; }

int main(int count, char **arguments) {
    check(count == 3, "two arguments");
    FILE *file = fopen(arguments[1], "rb");
    check(file && !fseek(file, 0, SEEK_END), "open the library");
    size = (size_t)ftell(file);
    content = malloc(size);
    rewind(file);
    check(fread(content, 1, size, file) == size, "read the library");
    fclose(file);
    check(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "unshare");
    int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    check(device >= 0, "/dev/fuse");
    char options[100];
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", device);
    check(!mount("deaf", arguments[2], "fuse", MS_NOSUID | MS_NODEV, options), "mount");
    pid_t server = fork();
    check(server >= 0, "fork");
    if (!server) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGUSR1, go_deaf);
        serve(device);
    }
    close(device);
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", arguments[2], NAME);
    void *library = dlopen(path, RTLD_NOW);
    void (*work)(void) = library ? (void (*)(void))dlsym(library, "plugin_work") : NULL;
    if (!work) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    work();
    kill(server, SIGUSR1);
    say_ready();
    for (;;) {
        work();
        own_work();
    }
}
