/*
 * What a kernel is of in a Debian package [deb(5)]: an archive that holds a compressed archive.  Both are libarchive's
 * to read, a shared library that is loaded when it is wanted.
 *
 * Packages are not trusted: only regular files below boot/ and lib/modules/ come out, of bounded number and size, under
 * names that lead nowhere else.  There are no symbolic links among them, and so none that a name could follow.
 */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"

enum { DEB_FILES_MAX = 1 << 16, DEB_NAME_MAX = 512 };
#define DEB_BYTES_MAX GiB(4) /* of all its files, also of those that stay in it */

/* Unpacks those n bytes into the empty directory `dir`, a descriptor; what is left there after a failure is the
 * caller's to remove.  Errors have no "package" in front. */
int deb_unpack(const void *bytes, size_t n, int dir, struct err *err) must_check;
