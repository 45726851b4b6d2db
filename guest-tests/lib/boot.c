#include "guest-tests/lib/boot.h"

#include "guest-tests/lib/io.h"
#include "guest-tests/lib/test.h"

struct start_info { /* [Xen, PVH boot ABI] */
    uint32_t magic, version, flags, nmodules;
    uint64_t modules, cmdline, rsdp;
};

extern uint32_t start_info;

static const struct start_info *info(void)
{
    return phys(start_info);
}

const char *boot_words(void)
{
    return info()->cmdline ? phys(info()->cmdline) : "";
}

uint64_t boot_rsdp(void)
{
    return info()->rsdp;
}

static uint16_t get16(const uint8_t *p)
{
    return p[0] | p[1] << 8;
}

uint32_t get32(const uint8_t *p)
{
    return get16(p) | (uint32_t)get16(p + 2) << 16;
}

uint64_t get64(const uint8_t *p)
{
    return get32(p) | (uint64_t)get32(p + 4) << 32;
}

static const uint8_t *checked(uint64_t address)
{
    const uint8_t *t = phys(address);
    uint8_t sum = 0;

    for (uint32_t i = 0; i < get32(t + 4); i++)
        sum += t[i];
    CHECK_EQ(sum, 0);
    return t;
}

const uint8_t *acpi_find(const char *signature)
{
    const uint8_t *rsdp = phys(boot_rsdp());

    if (!rsdp)
        skip("no ACPI here");
    if (!memcmp(signature, "DSDT", 4)) {
        const uint8_t *fadt = acpi_find("FACP");

        return checked(get64(fadt + 140) ? get64(fadt + 140) : get32(fadt + 40));
    }

    bool wide = rsdp[15] >= 2;
    const uint8_t *root = checked(wide ? get64(rsdp + 24) : get32(rsdp + 16));

    for (uint32_t at = 36; at < get32(root + 4); at += wide ? 8 : 4) {
        const uint8_t *t = phys(wide ? get64(root + at) : get32(root + at));

        if (!memcmp(t, signature, 4))
            return checked((uint64_t)t);
    }
    return NULL;
}
