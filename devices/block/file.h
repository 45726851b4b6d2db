/* The leaf of every tree of nodes: what the block layer's own files need of it besides the driver. */
#pragma once
#include <sys/stat.h>

#include "devices/block/driver.h"

extern const struct blk_driver file_driver;

/* Opens what `path` leads to, and calls it `name`.  `flags`: for open(2), to create it. */
int file_open(const char *path, const char *name, const struct blk_open_opts *o, int flags, struct lane *lane,
              struct blk **ret, struct err *err) must_check;

/* Of `b`, or of the leaf below it: */
int file_stat(struct blk *b, struct stat *ret) must_check;
/* Cuts a regular file to nothing. */
int file_empty(struct blk *b, struct err *err) must_check;
/* Takes in the size that a regular file has now. */
int file_grown(struct blk *b, struct err *err) must_check;
/* The file is a disk as it is: refused when empty; from now on it ends where it ends. */
int file_as_disk(struct blk *b, struct err *err) must_check;

/* Locks the file against everybody (`write`) or against writers, other programs' too.  -EAGAIN with a message that
 * names the holder and the ways out. */
int file_lock(int fd, bool write, const char *path, struct err *err) must_check;
void file_unlock(int fd);
