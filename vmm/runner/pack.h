/* The initramfs that a run brings along: the guest's first process, its orders, and the modules that it loads. */
#pragma once
#include "vmm/runner/run.h"

extern const unsigned char guest_init[]; /* firmware/init, linked */
extern const size_t guest_init_size;

/* For a config that is resolved.  A memfd, the caller's to close. */
int pack_initrd(const struct test_spec *s, int *ret, struct err *err) must_check;
/* Orders of nothing but a command's words, as one who serves takes them; the caller's to free. */
void pack_command(char *const *command, char **ret, size_t *n);
