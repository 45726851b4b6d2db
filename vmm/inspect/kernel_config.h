/* What a kernel was configured by, where it carries that with it (CONFIG_IKCONFIG=y), found in its memory. */
#pragma once
#include "vmm/inspect/vmcoreinfo.h"

/* A text of the caller's to free, NULL: there is none. */
char *kernel_config_read(const struct vmcoreinfo *k);
