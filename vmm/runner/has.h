/*
 * What a kernel has, as far as that is known before it boots: by its modules and the list of those built in, or by its
 * configuration where that lies beside it or in it.
 */
#pragma once
#include "vmm/runner/run.h"

enum has { HAS_NOT, HAS, HAS_MAYBE };

/* `module` is what CONFIG_`option` makes. */
enum has kernel_has(const struct test_spec *s, const char *module, const char *option);
/*
 * Changes what the run asks for to what the kernel can do: a machine without PCI; a root in memory instead of one on
 * virtio-fs.  Says so in the log.  An error where nothing would help, with the option that is missing.
 */
int fit_to_kernel(struct test_spec *s, struct err *err) must_check;
