/* A plugin for qemu-arm 7.2 and later: counts the instructions that a program executes, by kind, and prints the counts
 * on stderr at its end. The functions of qemu's that it calls are declared here, as qemu's packages bring no header. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

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
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, void (*callback)(qemu_plugin_id_t, void *), void *data);

int qemu_plugin_version = 1;

static uint64_t all, vector, vector_memory;

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

int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    qemu_plugin_register_atexit_cb(id, report, NULL);
    return 0;
}
