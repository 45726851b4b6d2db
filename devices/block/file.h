/* The raw file driver's helper that stands alone. */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"

/* Locks the whole file against everybody (`write`) or against writers.  -EAGAIN with a message that names the holder
 * and the ways out. */
int file_lock(int fd, bool write, const char *path, struct err *err) must_check;
void file_unlock(int fd);
