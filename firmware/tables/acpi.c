/*
 * ACPI tables [ACPI 6.3 5.2]: RSDP → XSDT → FADT (→ FACS, DSDT), MADT, MCFG [PCI Firmware 3.3 4.1].  They name what is
 * there and deny what is not, so that a kernel probes nothing in vain.
 */
#include "firmware/tables/aml.h"
#include "firmware/tables/tables.h"

enum {
    RSDP_SIZE = 36,
    SDT_HEADER = 36,
    XSDT_TABLES = 3, /* FADT, MADT, MCFG at most */
    FADT_SIZE = 276,
    FACS_SIZE = 64,
};

/* [5.2.6]; the length and checksum come with sdt_end(). */
static size_t sdt_begin(struct blob *b, const char *signature, uint8_t revision)
{
    blob_align(b, 16);

    size_t at = b->len;

    blob_put(b, signature, 4);
    blob_u32(b, 0);
    blob_u8(b, revision);
    blob_u8(b, 0);
    blob_put(b, "BOTHY MACHINE ", 14); /* OEM and table id */
    blob_u32(b, 1);
    blob_put(b, "BTHY", 4);
    blob_u32(b, 1);
    assert(b->len - at == SDT_HEADER);
    return at;
}

static void sdt_end(struct blob *b, size_t at)
{
    put_le32(b->data + at + 4, b->len - at);
    b->data[at + 9] = blob_checksum(b, at, b->len - at);
}

/* ---- DSDT ---- */

static void add_processors(struct blob *b, const struct board_desc *d)
{
    static const char hex[] = "0123456789ABCDEF";

    assert(d->cpus <= 0x1000);
    for (unsigned i = 0; i < d->cpus; i++) {
        const char name[] = {'C', hex[i >> 8 & 0xf], hex[i >> 4 & 0xf], hex[i & 0xf], 0};
        size_t dev = aml_device(b, name);

        aml_name(b, "_HID");
        aml_string(b, "ACPI0007");
        aml_name_int(b, "_UID", i);
        aml_close(b, dev);
    }
}

/* Which pin of which slot arrives at which GSI [6.2.13]. */
static void add_prt(struct blob *b, const uint8_t *gsi)
{
    enum { SLOTS = 32, PINS = 4 };

    aml_name(b, "_PRT");
    size_t prt = aml_package(b, SLOTS * PINS);
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        for (unsigned pin = 0; pin < PINS; pin++) {
            size_t entry = aml_package(b, 4);

            aml_int(b, slot << 16 | 0xffff);
            aml_int(b, pin);
            aml_int(b, 0); /* the next is a GSI, not a link device's index */
            aml_int(b, gsi[(slot + pin) % PINS]);
            aml_close(b, entry);
        }
    }
    aml_close(b, prt);
}

/*
 * _OSC [6.2.11, PCI Firmware 3.3 4.5]: the OS may have all PCIe features but SHPC hot-plug and LTR, which are not
 * there. Arg0 UUID, Arg1 revision, Arg3 capabilities: status, supported, control
 */
enum { OSC_CONTROL = 0x1d, OSC_BAD_UUID = 4, OSC_BAD_REVISION = 8, OSC_MASKED = 0x10 };

static void osc_status(struct blob *b, unsigned bit)
{
    aml_op(b, AML_OR);
    aml_ref(b, "STAT");
    aml_int(b, bit);
    aml_ref(b, "STAT");
}

static void osc_field(struct blob *b, unsigned offset, const char *name)
{
    aml_op(b, AML_CREATE_DWORD_FIELD);
    aml_op(b, AML_ARG0 + 3);
    aml_int(b, offset);
    aml_ref(b, name);
}

static void add_osc(struct blob *b)
{
    size_t osc = aml_method(b, "_OSC", 4);

    osc_field(b, 0, "STAT");
    size_t known = aml_if(b);
    aml_op(b, AML_EQUAL);
    aml_op(b, AML_ARG0);
    aml_uuid(b, "33db4d5b-1ff7-401c-9657-7441c03dd766");
    osc_field(b, 8, "CTRL");
    aml_op(b, AML_AND);
    aml_ref(b, "CTRL");
    aml_int(b, OSC_CONTROL);
    aml_op(b, AML_LOCAL0);

    size_t masked = aml_if(b);
    aml_op(b, AML_NOT_EQUAL);
    aml_op(b, AML_LOCAL0);
    aml_ref(b, "CTRL");
    osc_status(b, OSC_MASKED);
    aml_close(b, masked);

    size_t revision = aml_if(b);
    aml_op(b, AML_NOT_EQUAL);
    aml_op(b, AML_ARG0 + 1);
    aml_int(b, 1);
    osc_status(b, OSC_BAD_REVISION);
    aml_close(b, revision);

    aml_op(b, AML_STORE);
    aml_op(b, AML_LOCAL0);
    aml_ref(b, "CTRL");
    aml_close(b, known);

    size_t unknown = aml_else(b);
    osc_status(b, OSC_BAD_UUID);
    aml_close(b, unknown);

    aml_op(b, AML_RETURN);
    aml_op(b, AML_ARG0 + 3);
    aml_close(b, osc);
}

static void add_pci(struct blob *b, const struct board_desc *d)
{
    struct blob crs = {0};
    size_t dev = aml_device(b, "PCI0");

    aml_name_eisa_id(b, "_HID", "PNP0A08");
    aml_name_eisa_id(b, "_CID", "PNP0A03");
    aml_name_int(b, "_UID", 0);
    aml_name_int(b, "_SEG", 0);
    aml_name_int(b, "_BBN", 0);
    res_window(&crs, RES_WINDOW_BUS, 0, 1);
    res_io(&crs, 0xcf8, 8);
    if (d->pci.io_len)
        res_window(&crs, RES_WINDOW_IO, d->pci.io_base, d->pci.io_len);
    if (d->pci.mmio32_len)
        res_window(&crs, RES_WINDOW_MEMORY, d->pci.mmio32, d->pci.mmio32_len);
    if (d->pci.mmio64_len)
        res_window(&crs, RES_WINDOW_MEMORY, d->pci.mmio64, d->pci.mmio64_len);
    aml_name_resources(b, "_CRS", &crs);
    add_prt(b, d->pci.intx_gsi);
    add_osc(b);
    aml_close(b, dev);

    /* Linux uses ECAM only where a motherboard device claims it. */
    dev = aml_device(b, "ECAM");
    aml_name_eisa_id(b, "_HID", "PNP0C02");
    aml_name_int(b, "_UID", 0);
    res_memory(&crs, d->pci.ecam, MiB(1));
    aml_name_resources(b, "_CRS", &crs);
    aml_close(b, dev);
}

/* A device known by an EISA id, with ports and perhaps an ISA interrupt. */
static void add_isa(struct blob *b, const char *name, const char *id, unsigned uid, uint16_t port, uint8_t len, int irq)
{
    struct blob crs = {0};
    size_t dev = aml_device(b, name);

    aml_name_eisa_id(b, "_HID", id);
    aml_name_int(b, "_UID", uid);
    res_io(&crs, port, len);
    if (irq >= 0)
        res_irq(&crs, irq);
    aml_name_resources(b, "_CRS", &crs);
    aml_close(b, dev);
}

static void add_pvpanic(struct blob *b, uint16_t port)
{
    struct blob crs = {0};
    size_t dev = aml_device(b, "PANI");

    aml_name(b, "_HID");
    aml_string(b, "QEMU0001");
    res_io(&crs, port, 1);
    aml_name_resources(b, "_CRS", &crs);
    aml_close(b, dev);
}

static void add_virtio_mmio(struct blob *b, const struct board_desc *d)
{
    for (unsigned i = 0; i < d->nvirtio_mmio; i++) {
        struct blob crs = {0};
        const char name[] = {'V', 'I', 'O', 'A' + i, 0};
        size_t dev = aml_device(b, name);

        aml_name(b, "_HID");
        aml_string(b, "LNRO0005");
        aml_name_int(b, "_UID", i);
        res_memory(&crs, d->virtio_mmio[i].base, d->virtio_mmio[i].len);
        res_gsi(&crs, d->virtio_mmio[i].gsi);
        aml_name_resources(b, "_CRS", &crs);
        aml_close(b, dev);
    }
}

static size_t build_dsdt(struct blob *b, const struct board_desc *d)
{
    size_t dsdt = sdt_begin(b, "DSDT", 2);

    if (d->pm_base) {
        aml_name(b, "_S5");
        size_t s5 = aml_package(b, 2); /* SLP_TYP for PM1a and PM1b control */
        aml_int(b, d->s5_type);
        aml_int(b, 0);
        aml_close(b, s5);
    }

    size_t sb = aml_scope(b, "_SB");
    add_processors(b, d);
    if (d->pci.ecam)
        add_pci(b, d);
    for (unsigned i = 0; i < d->nuarts; i++) {
        const char name[] = {'C', 'O', 'M', '1' + i, 0};

        add_isa(b, name, "PNP0501", i + 1, d->uart[i].port, 8, d->uart[i].irq);
    }
    if (d->rtc)
        add_isa(b, "RTC", "PNP0B00", 0, 0x70, 2, 8);
    if (d->pvpanic_port)
        add_pvpanic(b, d->pvpanic_port);
    add_virtio_mmio(b, d);
    aml_close(b, sb);
    sdt_end(b, dsdt);
    return dsdt;
}

/* ---- tables of fixed form ---- */

/* Global lock and waking vector [5.2.10]: a machine with fixed hardware must have one, the OS writes it. */
static size_t build_facs(struct blob *b)
{
    blob_align(b, FACS_SIZE);

    size_t at = b->len;

    blob_put(b, "FACS", 4);
    blob_u32(b, FACS_SIZE);
    blob_zero(b, FACS_SIZE - 8);
    b->data[at + 32] = 2; /* version */
    return at;
}

enum gas_access { ACCESS_BYTE = 1, ACCESS_WORD, ACCESS_DWORD };

/* Generic address structure [5.2.3.2] of a register in I/O space. */
static void gas_io(uint8_t *p, uint16_t port, unsigned bits, enum gas_access access)
{
    p[0] = 1; /* system I/O */
    p[1] = bits;
    p[3] = access;
    put_le64(p + 4, port);
}

/* [5.2.9]; offsets are the table's. */
static size_t build_fadt(struct blob *b, const struct board_desc *d, uint64_t facs, uint64_t dsdt)
{
    enum { /* Flags, table 5-34 */
           WBINVD = 1 << 0,
           PROC_C1 = 1 << 2,
           NO_SLEEP_BUTTON = 1 << 5,
           NO_FIXED_RTC = 1 << 6,
           RESET_REG = 1 << 10,
           HW_REDUCED = 1 << 20,
    };
    enum { /* IA-PC boot architecture flags, table 5-35 */
           LEGACY_DEVICES = 1 << 0,
           NO_VGA = 1 << 2,
           NO_ASPM = 1 << 4,
           NO_CMOS_RTC = 1 << 5,
    };
    enum { NO_C_STATE = 0xfff, RTC_CENTURY = 0x32 };
    size_t at = sdt_begin(b, "FACP", 6);
    uint32_t flags = WBINVD | PROC_C1 | NO_SLEEP_BUTTON | NO_FIXED_RTC;
    uint16_t boot = NO_VGA | NO_ASPM;

    blob_zero(b, FADT_SIZE - SDT_HEADER);

    uint8_t *t = b->data + at;

    put_le32(t + 40, dsdt);
    put_le64(t + 140, dsdt);
    put_le16(t + 96, NO_C_STATE); /* latencies that rule C2 and C3 out */
    put_le16(t + 98, NO_C_STATE);
    if (d->pm_base) {
        put_le32(t + 36, facs); /* SMI_CMD stays 0: ACPI mode is always on */
        put_le16(t + 46, d->sci);
        put_le32(t + 56, d->pm_base);
        put_le32(t + 64, d->pm_base + 4);
        put_le32(t + 76, d->pm_base + 8);
        t[88] = 4; /* lengths of the event block, */
        t[89] = 2; /* the control block, */
        t[91] = 4; /* and the timer */
        gas_io(t + 148, d->pm_base, 32, ACCESS_WORD);
        gas_io(t + 172, d->pm_base + 4, 16, ACCESS_WORD);
        gas_io(t + 208, d->pm_base + 8, 32, ACCESS_DWORD);
    } else {
        flags |= HW_REDUCED;
    }
    if (d->reset_port) {
        flags |= RESET_REG;
        gas_io(t + 116, d->reset_port, 8, ACCESS_BYTE);
        t[128] = d->reset_value;
    }
    if (d->nuarts)
        boot |= LEGACY_DEVICES;
    if (d->rtc)
        t[108] = RTC_CENTURY;
    else
        boot |= NO_CMOS_RTC;
    put_le16(t + 109, boot);
    put_le32(t + 112, flags);
    t[131] = 3; /* minor revision: 6.3 */
    memcpy(t + 268, "BOTHY\0\0", 8);
    sdt_end(b, at);
    return at;
}

/* [5.2.12] */
static size_t build_madt(struct blob *b, const struct board_desc *d)
{
    enum { LAPIC = 0, IOAPIC = 1, OVERRIDE = 2, LAPIC_NMI = 4, X2APIC = 9, X2APIC_NMI = 10 };
    enum { ENABLED = 1, PCAT_COMPAT = 1, ACTIVE_HIGH = 1, LEVEL = 3 << 2, LAPIC_ID_MAX = 254, NMI_PIN = 1 };
    size_t at = sdt_begin(b, "APIC", 5);
    bool wide = false;

    blob_u32(b, d->lapic);
    blob_u32(b, d->pit ? PCAT_COMPAT : 0);
    for (unsigned i = 0; i < d->cpus; i++) {
        uint32_t id = d->apic_ids[i];

        if (id <= LAPIC_ID_MAX && i <= UINT8_MAX) {
            blob_put(b, (uint8_t[]){LAPIC, 8, i, id}, 4);
            blob_u32(b, ENABLED);
        } else {
            wide = true;
            blob_put(b, (uint8_t[]){X2APIC, 16, 0, 0}, 4);
            blob_u32(b, id);
            blob_u32(b, ENABLED);
            blob_u32(b, i);
        }
    }
    blob_put(b, (uint8_t[]){IOAPIC, 12, 0, 0}, 4);
    blob_u32(b, d->ioapic);
    blob_u32(b, 0); /* GSI of its first pin */
    if (d->pit) {
        blob_put(b, (uint8_t[]){OVERRIDE, 10, 0, 0}, 4);
        blob_u32(b, 2);
        blob_u16(b, 0); /* as on ISA */
    }
    if (d->pm_base) {
        blob_put(b, (uint8_t[]){OVERRIDE, 10, 0, d->sci}, 4);
        blob_u32(b, d->sci);
        blob_u16(b, LEVEL | ACTIVE_HIGH);
    }
    blob_put(b, (uint8_t[]){LAPIC_NMI, 6, 0xff /* every processor */, 0, 0, NMI_PIN}, 6);
    if (wide)
        blob_put(b, (uint8_t[]){X2APIC_NMI, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, NMI_PIN, 0, 0, 0}, 12);
    sdt_end(b, at);
    return at;
}

static size_t build_mcfg(struct blob *b, const struct board_desc *d)
{
    size_t at = sdt_begin(b, "MCFG", 1);

    blob_zero(b, 8);
    blob_u64(b, d->pci.ecam);
    blob_u16(b, 0); /* segment */
    blob_u8(b, 0);  /* first and */
    blob_u8(b, 0);  /* last bus */
    blob_u32(b, 0);
    sdt_end(b, at);
    return at;
}

static void build_rsdp(uint8_t *p, uint64_t xsdt)
{
    const struct blob b = {.data = p, .len = RSDP_SIZE};

    memcpy(p, "RSD PTR ", 8);
    memcpy(p + 9, "BOTHY ", 6);
    p[15] = 2;
    put_le32(p + 20, RSDP_SIZE);
    put_le64(p + 24, xsdt);
    p[8] = blob_checksum(&b, 0, 20);
    p[32] = blob_checksum(&b, 0, RSDP_SIZE);
}

struct blob acpi_build(const struct board_desc *d, uint64_t base)
{
    struct blob b = {0};
    uint64_t tables[XSDT_TABLES];
    unsigned n = 0;

    assert(d->cpus && base % FACS_SIZE == 0 && d->nvirtio_mmio <= BOARD_VIRTIO_MMIO_MAX &&
           d->nuarts <= BOARD_UARTS_MAX);
    blob_zero(&b, RSDP_SIZE);

    uint64_t facs = base + build_facs(&b);
    uint64_t dsdt = base + build_dsdt(&b, d);

    tables[n++] = base + build_fadt(&b, d, facs, dsdt);
    tables[n++] = base + build_madt(&b, d);
    if (d->pci.ecam)
        tables[n++] = base + build_mcfg(&b, d);

    size_t xsdt = sdt_begin(&b, "XSDT", 1);

    for (unsigned i = 0; i < n; i++)
        blob_u64(&b, tables[i]);
    sdt_end(&b, xsdt);
    build_rsdp(b.data, base + xsdt);
    assert(base + b.len <= UINT32_MAX);
    return b;
}
