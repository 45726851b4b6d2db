/* Zydis is loaded when it is needed: hardly any run ends in a report, and every run would pay for linking it. */
#include "vmm/kvm/decode.h"

#ifdef HAVE_ZYDIS
#include <Zydis/Zydis.h>
#include <dlfcn.h>
#include <stdio.h>

typedef __typeof__(ZydisDisassembleIntel) disassemble_fn;

/* The library stays loaded. */
static disassemble_fn *load(void)
{
    char name[32];
    void *lib;

    snprintf(name, sizeof(name), "libZydis.so.%u.%u", ZYDIS_VERSION_MAJOR(ZYDIS_VERSION),
             ZYDIS_VERSION_MINOR(ZYDIS_VERSION));
    lib = dlopen(name, RTLD_NOW);
    return lib ? (disassemble_fn *)dlsym(lib, "ZydisDisassembleIntel") : NULL;
}

bool decode_available(void)
{
    return load();
}

bool decode_instruction(unsigned bits, uint64_t addr, const uint8_t *code, size_t n, char *text, size_t text_len)
{
    ZydisMachineMode mode = bits == 64   ? ZYDIS_MACHINE_MODE_LONG_64
                            : bits == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                         : ZYDIS_MACHINE_MODE_REAL_16;
    disassemble_fn *disassemble = load();
    ZydisDisassembledInstruction insn;

    if (!disassemble || ZYAN_FAILED(disassemble(mode, addr, code, n, &insn)))
        return false;
    snprintf(text, text_len, "%s", insn.text);
    return true;
}
#else
bool decode_available(void)
{
    return false;
}

bool decode_instruction(unsigned bits, uint64_t addr, const uint8_t *code, size_t n, char *text, size_t text_len)
{
    (void)bits, (void)addr, (void)code, (void)n, (void)text, (void)text_len;
    return false;
}
#endif
