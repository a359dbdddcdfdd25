/* A plugin for qemu-arm 7.2 and later: counts the instructions that a program executes, by kind, and prints the counts
 * on stderr at its end; with `opens=BASE` also what was counted so far and the path whenever it opens a file, BASE being
 * what the emulator was given with -B. The functions of qemu's that it calls are declared here, as qemu's packages bring no
 * header. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info;
enum { INLINE_ADD_U64 = 0 };

extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
                                                  void (*callback)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, int operation, void *counter,
                                                     uint64_t value);
extern void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id,
                                                 void (*callback)(qemu_plugin_id_t, unsigned, int64_t, uint64_t,
                                                                  uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                                                                  uint64_t, uint64_t));
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, void (*callback)(qemu_plugin_id_t, void *), void *data);

int qemu_plugin_version = 1;

static uint64_t all, vector, vector_memory, base;
enum { OPEN = 5, OPENAT = 322 }; /* system calls of 32-bit ARM */

/* Thumb's NEON instructions are told by their first half word, ARM's by their last byte. A block of Thumb code has a
 * short instruction somewhere, or its long ones begin with 0xe8 to 0xff, which in ARM code is no usual place. */
static int is_thumb(struct qemu_plugin_tb *tb, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (qemu_plugin_insn_size(qemu_plugin_tb_get_insn(tb, i)) == 2)
            return 1;
    return ((const uint8_t *)qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, 0)))[1] >= 0xe8;
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    size_t count = qemu_plugin_tb_n_insns(tb);
    int thumb = is_thumb(tb, count);
    uint64_t vectors = 0, memories = 0;
    for (size_t i = 0; i < count; i++) {
        const struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        if (qemu_plugin_insn_size(insn) != 4)
            continue;
        uint8_t top = ((const uint8_t *)qemu_plugin_insn_data(insn))[thumb ? 1 : 3];
        vectors += thumb ? (top == 0xef || top == 0xff) : (top == 0xf2 || top == 0xf3);
        memories += thumb ? top == 0xf9 : top == 0xf4;
    }
    qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64, &all, count);
    if (vectors)
        qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64, &vector, vectors);
    if (memories)
        qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64, &vector_memory, memories);
}

static void report(qemu_plugin_id_t id, void *data)
{
    (void)id, (void)data;
    fprintf(stderr, "instructions %llu vector %llu vector_memory %llu\n", (unsigned long long)all,
            (unsigned long long)vector, (unsigned long long)vector_memory);
}

static void on_system_call(qemu_plugin_id_t id, unsigned core, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                           uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)core, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number == OPEN || number == OPENAT)
        fprintf(stderr, "opens %llu %llu %s\n", (unsigned long long)all, (unsigned long long)(vector + vector_memory),
                (const char *)(base + (number == OPEN ? a1 : a2)));
}

int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], "opens=", 6) == 0)
            base = strtoull(argv[i] + 6, NULL, 0);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    if (base)
        qemu_plugin_register_vcpu_syscall_cb(id, on_system_call);
    qemu_plugin_register_atexit_cb(id, report, NULL);
    return 0;
}
