/* What the boot loader left: the PVH start information, and the ACPI tables that it leads to. */
#pragma once
#include <stdint.h>

/* The command line, "" when there is none. */
const char *boot_words(void);
uint64_t boot_rsdp(void);

/* The ACPI table with that signature, its checksum checked; NULL when there is none.  "DSDT" by way of the FADT. */
const uint8_t *acpi_find(const char *signature);
/* Fields of tables; any alignment. */
uint32_t get32(const uint8_t *p);
uint64_t get64(const uint8_t *p);
