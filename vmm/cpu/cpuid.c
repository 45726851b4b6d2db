/* [Intel SDM vol. 2A, CPUID; AMD APM vol. 3 appendix E; Documentation/virt/kvm/x86/cpuid.rst] */
#include "vmm/cpu/cpuid.h"

#include <stdio.h>

#include "vmm/base/cleanup.h"
#include "vmm/cpu/features.h"

enum {
    LEAF_FEATURES = 0x1,
    LEAF_CACHE = 0x4,
    LEAF_EXT_FEATURES = 0x7,
    LEAF_TOPOLOGY = 0xb,
    LEAF_SGX = 0x12,
    LEAF_TSC_FREQUENCY = 0x15,
    LEAF_CPU_FREQUENCY = 0x16,
    LEAF_TOPOLOGY_V2 = 0x1f,
    LEAF_KVM_FEATURES = 0x40000001,
};
#define LEAF_AMD_FEATURES     0x80000001u
#define LEAF_ADDRESS_SIZES    0x80000008u
#define LEAF_AMD_CACHE        0x8000001du
#define LEAF_AMD_TOPOLOGY     0x8000001eu
#define LEAF_AMD_TOPOLOGY_EXT 0x80000026u

#define BIT(n) (1u << (n))
enum {
    ECX1_X2APIC = 21,
    ECX1_TSC_DEADLINE = 24,
    ECX1_HYPERVISOR = 31,
    EDX1_HTT = 28, /* EBX[23:16] says how many logical CPUs a package has */
    EBX7_SGX = 2,
    ECX7_SGX_LC = 30,
    ECX81_CMP_LEGACY = 1,
    ECX81_TOPOEXT = 22,
    KVM_MSI_EXT_DEST_ID = 15,
};
#define EDX81_ALIASES 0x0183f3ffu /* AMD repeats these bits of leaf 1 EDX in 0x80000001 EDX */

struct cpuid_entry *cpuid_find(struct cpuid *c, uint32_t fn, uint32_t idx)
{
    for (unsigned i = 0; i < c->n; i++)
        if (c->e[i].fn == fn && (!c->e[i].indexed || c->e[i].idx == idx))
            return &c->e[i];
    return NULL;
}

static bool has_bit(struct cpuid *c, const struct cpu_feature *f)
{
    struct cpuid_entry *e = cpuid_find(c, f->fn, f->idx);

    return e && e->r[f->reg] & BIT(f->bit);
}

static void clear_bit(struct cpuid *c, const struct cpu_feature *f)
{
    struct cpuid_entry *e = cpuid_find(c, f->fn, f->idx);

    if (e)
        e->r[f->reg] &= ~BIT(f->bit);
    if (f->fn == LEAF_FEATURES && f->reg == CPUID_EDX && EDX81_ALIASES & BIT(f->bit))
        clear_bit(c, &(struct cpu_feature){LEAF_AMD_FEATURES, 0, CPUID_EDX, f->bit});
}

static int select_one(struct cpuid *c, const char *word, struct err *err)
{
    const char *name = word + 1;
    struct cpu_feature f;
    bool there = false;

    if (*word != '+' && *word != '-')
        return err_set(err, EINVAL, "cpu: \"%s\" needs a + or - in front: host,-FEATURE,+FEATURE", word);
    if (!cpu_feature_find(name, 0, &f)) {
        char buf[32];
        const char *near = cpu_feature_nearest(name, buf, sizeof(buf));

        return err_set(err, ENOENT, "cpu: no feature is called \"%s\"%s%s%s (names are as in /proc/cpuinfo)", name,
                       near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    }
    for (unsigned n = 0; cpu_feature_find(name, n, &f); n++) {
        there |= has_bit(c, &f);
        if (*word == '-')
            clear_bit(c, &f);
    }
    if (*word == '+' && !there)
        return err_set(err, EOPNOTSUPP, "cpu: KVM on this host does not offer the feature \"%s\"; leave out %s", name,
                       word);
    return 0;
}

int cpuid_select(struct cpuid *c, const char *text, struct err *err)
{
    cleanup_free char *words = NULL;
    char *rest, *word;

    if (!text)
        return 0;
    words = strdup(text);
    if (!words)
        abort();
    rest = words;
    word = strsep(&rest, ",");
    if (strcmp(word, "host"))
        return err_set(err, ENOENT, "cpu: no model is called \"%s\"; the only one is \"host\": host,-FEATURE,+FEATURE",
                       word);
    while ((word = strsep(&rest, ","))) {
        int rc = select_one(c, word, err);

        if (rc < 0)
            return rc;
    }
    return 0;
}

/* The entry, added when it is not there.  The caller made sure of room. */
static struct cpuid_entry *find_or_add(struct cpuid *c, uint32_t fn, uint32_t idx, bool indexed)
{
    struct cpuid_entry *e = cpuid_find(c, fn, idx);

    if (e)
        return e;
    assert(c->n < CPUID_ENTRIES_MAX);
    e = &c->e[c->n++];
    *e = (struct cpuid_entry){.fn = fn, .idx = idx, .indexed = indexed};
    return e;
}

static void zero_leaf(struct cpuid *c, uint32_t fn)
{
    for (unsigned i = 0; i < c->n; i++)
        if (c->e[i].fn == fn)
            memset(c->e[i].r, 0, sizeof(c->e[i].r));
}

static void set_field(uint32_t *reg, unsigned low, unsigned width, uint32_t v)
{
    uint32_t max = width == 32 ? UINT32_MAX : BIT(width) - 1;

    if (v > max)
        v = max; /* as the manuals have it: all ones where a count does not fit */
    *reg = (*reg & ~(max << low)) | v << low;
}

/* Caches of levels 1 and 2 belong to a core, those above to a package. */
static void set_cache_sharing(struct cpuid *c, const struct cpu_topology *t, uint32_t fn)
{
    unsigned thread_bits = cpu_id_bits(t->threads), core_bits = cpu_id_bits(t->cores);

    for (unsigned i = 0; i < c->n; i++) {
        uint32_t *eax = &c->e[i].r[CPUID_EAX];
        unsigned type = *eax & 0x1f, level = *eax >> 5 & 7;

        if (c->e[i].fn != fn || !type)
            continue;
        set_field(eax, 14, 12, BIT(level <= 2 ? thread_bits : thread_bits + core_bits) - 1);
        if (fn == LEAF_CACHE)
            set_field(eax, 26, 6, BIT(core_bits) - 1);
    }
}

/* Leaves 0xb and 0x1f: threads of a core, CPUs of a package, end. */
enum { TOPOLOGY_LEVELS = 3 };
static void set_extended_topology(struct cpuid *c, const struct cpu_topology *t, uint32_t fn)
{
    enum { LEVEL_THREAD = 1, LEVEL_CORE = 2 };
    unsigned thread_bits = cpu_id_bits(t->threads), core_bits = cpu_id_bits(t->cores);
    const uint32_t levels[TOPOLOGY_LEVELS][3] = {
        {thread_bits, t->threads, LEVEL_THREAD << 8 | 0},
        {thread_bits + core_bits, t->threads * t->cores, LEVEL_CORE << 8 | 1},
        {0, 0, 2},
    };

    zero_leaf(c, fn);
    for (unsigned i = 0; i < TOPOLOGY_LEVELS; i++) /* EDX, the id, differs from CPU to CPU */
        memcpy(find_or_add(c, fn, i, true)->r, levels[i], sizeof(levels[i]));
}

int cpuid_set_machine(struct cpuid *c, const struct cpuid_machine *m, struct err *err)
{
    const struct cpu_topology *t = &m->topology;
    unsigned id_bits = cpu_id_bits(t->threads) + cpu_id_bits(t->cores), package = t->threads * t->cores;
    enum { ADDED_MAX = 1 + 2 * TOPOLOGY_LEVELS };
    struct cpuid_entry *e;

    if (c->n > CPUID_ENTRIES_MAX - ADDED_MAX)
        return err_set(err, ENOSPC, "cpu: KVM offers %u CPUID entries, more than %d", c->n,
                       CPUID_ENTRIES_MAX - ADDED_MAX);
    e = find_or_add(c, 0, 0, false);
    e->r[CPUID_EAX] = (uint32_t)max_u64(e->r[CPUID_EAX], LEAF_TOPOLOGY);
    set_extended_topology(c, t, LEAF_TOPOLOGY);
    if (cpuid_find(c, LEAF_TOPOLOGY_V2, 0))
        set_extended_topology(c, t, LEAF_TOPOLOGY_V2);

    e = cpuid_find(c, LEAF_FEATURES, 0);
    if (e) {
        set_field(&e->r[CPUID_EBX], 16, 8, BIT(id_bits));
        set_field(&e->r[CPUID_EDX], EDX1_HTT, 1, package > 1);
        e->r[CPUID_ECX] |= BIT(ECX1_HYPERVISOR) | BIT(ECX1_X2APIC);
        if (m->tsc_deadline)
            e->r[CPUID_ECX] |= BIT(ECX1_TSC_DEADLINE);
    }

    set_cache_sharing(c, t, LEAF_CACHE);
    set_cache_sharing(c, t, LEAF_AMD_CACHE);
    e = cpuid_find(c, LEAF_AMD_FEATURES, 0);
    if (e && e->r[CPUID_ECX] & (BIT(ECX81_CMP_LEGACY) | BIT(ECX81_TOPOEXT))) {
        set_field(&e->r[CPUID_ECX], ECX81_CMP_LEGACY, 1, package > 1);
        e = cpuid_find(c, LEAF_ADDRESS_SIZES, 0);
        if (e) {
            set_field(&e->r[CPUID_ECX], 0, 8, package - 1);
            set_field(&e->r[CPUID_ECX], 12, 4, id_bits);
        }
    }
    zero_leaf(c, LEAF_AMD_TOPOLOGY_EXT); /* the host's dies and complexes; 0xb says it all */

    /* The host's crystal: KVM's APIC timer does not run from it.  Guests have kvmclock and the TSC deadline instead. */
    zero_leaf(c, LEAF_TSC_FREQUENCY);
    zero_leaf(c, LEAF_CPU_FREQUENCY);
    /* Without memory of its own SGX is of no use. */
    zero_leaf(c, LEAF_SGX);
    clear_bit(c, &(struct cpu_feature){LEAF_EXT_FEATURES, 0, CPUID_EBX, EBX7_SGX});
    clear_bit(c, &(struct cpu_feature){LEAF_EXT_FEATURES, 0, CPUID_ECX, ECX7_SGX_LC});

    e = cpuid_find(c, LEAF_KVM_FEATURES, 0);
    if (e && m->wide_apic_ids)
        e->r[CPUID_EAX] |= BIT(KVM_MSI_EXT_DEST_ID);
    return 0;
}

void cpuid_set_cpu(struct cpuid *c, const struct cpu_topology *t, unsigned cpu)
{
    unsigned core = cpu / t->threads % t->cores, socket = cpu / t->threads / t->cores;
    uint32_t id = cpu_apic_id(t, cpu);
    struct cpuid_entry *e = cpuid_find(c, LEAF_FEATURES, 0);

    if (e)
        e->r[CPUID_EBX] = (e->r[CPUID_EBX] & 0x00ffffff) | id << 24;
    for (unsigned i = 0; i < c->n; i++)
        if (c->e[i].fn == LEAF_TOPOLOGY || c->e[i].fn == LEAF_TOPOLOGY_V2)
            c->e[i].r[CPUID_EDX] = id;
    e = cpuid_find(c, LEAF_AMD_TOPOLOGY, 0);
    if (e && has_bit(c, &(struct cpu_feature){LEAF_AMD_FEATURES, 0, CPUID_ECX, ECX81_TOPOEXT})) {
        e->r[CPUID_EAX] = id;
        e->r[CPUID_EBX] = (core & 0xff) | (t->threads - 1) << 8;
        e->r[CPUID_ECX] = socket & 0xff; /* a package is one node */
    }
}

unsigned cpuid_phys_bits(struct cpuid *c)
{
    enum { PAE_BITS = 36 };
    struct cpuid_entry *e = cpuid_find(c, LEAF_ADDRESS_SIZES, 0);
    unsigned bits = e ? e->r[CPUID_EAX] & 0xff : 0;
    unsigned mappable = e ? e->r[CPUID_EAX] >> 16 & 0xff : 0; /* less, where second-level tables are shallow */

    if (!bits)
        return PAE_BITS;
    return mappable && mappable < bits ? mappable : bits;
}
