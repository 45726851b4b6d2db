/*
 * Options as tables.  Whoever uses a value owns its row: name, kind, help, default.  Parsing, validation with a
 * suggestion for the misspelt, help, completion and the resolved machine's JSON all come from the row, so there is
 * nothing else to keep in step.  Values are kept in the owner's struct at the row's offset.
 */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"

enum opt_kind {
    OPT_BOOL,   /* bool:     on | off; the name alone means on */
    OPT_U32,    /* uint32_t: 10, 0x3f8 */
    OPT_U64,    /* uint64_t */
    OPT_SIZE,   /* uint64_t: bytes; suffix K, M, G, T, P, E (powers of 1024) */
    OPT_STRING, /* char *:   owned by the struct, freed by opts_clear() */
    OPT_ENUM,   /* uint32_t: index in `words` */
    OPT_LIST,   /* struct opt_list: a string a mention, in order; freed by opts_clear() */
    OPT_CHOICE, /* struct opt_chosen: a word that brings options of its own; freed by opts_clear() */
};

struct opt_list {
    char **v;
    size_t n;
};
enum { OPT_LIST_MAX = 64 }; /* strings in one list */

/* One of several things to choose among.  Its options then stand beside those of the table that the choice is in. */
struct opt_choice {
    const char *name, *summary;
    const struct opt *opts; /* may be NULL */
    size_t size;            /* of their struct */
    const char *first;      /* the one of them that VALUE sets in "NAME=VALUE", or NULL */
};
struct opt_chosen {
    struct opt_choice is; /* name NULL: nothing yet */
    void *obj;
};

struct opt {
    const char *name, *help;
    const char *dflt; /* as text; NULL: required for numbers and words, NULL pointer for strings */
    enum opt_kind kind;
    uint32_t off;
    const char *const *words;                /* OPT_ENUM: NULL-terminated */
    struct opt_choice (*choice)(unsigned i); /* OPT_CHOICE: the i-th; name NULL behind the last */
    uint64_t min, max;                       /* numbers; max 0: no limit */
    const char *arg; /* what help calls the value: "FILE" and "DIR" complete as such; NULL: by kind */
    char letter;     /* -X on a command line; 0: long form only */
};

#define OPT_OFF(T, f, type)                                                            \
    (offsetof(T, f) + 0 * sizeof(struct {                                              \
                          _Static_assert(_Generic(((T *)0)->f, type : 1, default : 0), \
                                         #f ": wrong type for its option");            \
                          int x;                                                       \
                      }))
/* What stands after the named arguments goes into the row as it is: O_STR(…, "kernel to boot", .letter = 'k'). */
#define O_BOOL(T, f, n, d, h, ...)                                                                 \
    {                                                                                              \
        .name = n, .help = h, .dflt = d, .kind = OPT_BOOL, .off = OPT_OFF(T, f, bool), __VA_ARGS__ \
    }
#define O_U32(T, f, n, d, lo, hi, h, ...)                                                                       \
    {                                                                                                           \
        .name = n, .help = h, .dflt = d, .kind = OPT_U32, .off = OPT_OFF(T, f, uint32_t), .min = lo, .max = hi, \
        __VA_ARGS__                                                                                             \
    }
#define O_U64(T, f, n, d, lo, hi, h, ...)                                                                       \
    {                                                                                                           \
        .name = n, .help = h, .dflt = d, .kind = OPT_U64, .off = OPT_OFF(T, f, uint64_t), .min = lo, .max = hi, \
        __VA_ARGS__                                                                                             \
    }
#define O_SIZE(T, f, n, d, lo, hi, h, ...)                                                                       \
    {                                                                                                            \
        .name = n, .help = h, .dflt = d, .kind = OPT_SIZE, .off = OPT_OFF(T, f, uint64_t), .min = lo, .max = hi, \
        __VA_ARGS__                                                                                              \
    }
#define O_STR(T, f, n, d, h, ...)                                                                      \
    {                                                                                                  \
        .name = n, .help = h, .dflt = d, .kind = OPT_STRING, .off = OPT_OFF(T, f, char *), __VA_ARGS__ \
    }
#define O_ENUM(T, f, n, d, w, h, ...)                                                                              \
    {                                                                                                              \
        .name = n, .help = h, .dflt = d, .kind = OPT_ENUM, .off = OPT_OFF(T, f, uint32_t), .words = w, __VA_ARGS__ \
    }
#define O_LIST(T, f, n, h, ...)                                                                    \
    {                                                                                              \
        .name = n, .help = h, .kind = OPT_LIST, .off = OPT_OFF(T, f, struct opt_list), __VA_ARGS__ \
    }
#define O_CHOICE(T, f, n, d, c, h, ...)                                                                            \
    {                                                                                                              \
        .name = n, .help = h, .dflt = d, .kind = OPT_CHOICE, .off = OPT_OFF(T, f, struct opt_chosen), .choice = c, \
        __VA_ARGS__                                                                                                \
    }
#define O_END        \
    {                \
        .name = NULL \
    }

/* Sets every option to its default (the struct's strings must be NULL or owned).  A table has one choice at most. */
void opts_default(const struct opt *opts, void *obj);
/* One value from text, in the table or among the options of what is chosen in it.  Unknown name: -ENOENT with the
 * nearest name in the message; bad value: -EINVAL. */
int opts_set(const struct opt *opts, void *obj, const char *name, const char *value, struct err *err) must_check;
/*
 * "key=value,key=value,flag" on top of what is set; ",," is a literal comma.  `first`, when not NULL, names the option
 * that a leading word without '=' sets (the path of a disk).  If that is a choice, "CHOICE=VALUE" sets an option of the
 * choice's as well.  Required options must be in the text, and none but lists
 * may be there twice.
 */
int opts_parse(const struct opt *opts, void *obj, const char *first, const char *text, struct err *err) must_check;
/* The value as text that opts_set() takes back, in `buf`; NULL for a string that is not set, and for lists. */
const char *opts_get(const struct opt *o, const void *obj, char *buf, size_t n);
/* The strings of a list.  Borrowed. */
const struct opt_list *opts_list(const struct opt *o, const void *obj);
/* The options that come with what was chosen in the table, and their struct in *ret; NULL: there are none. */
const struct opt *opts_chosen(const struct opt *opts, const void *obj, void **ret);
/* Frees the strings. */
void opts_clear(const struct opt *opts, void *obj);
/* The table entry of that name or NULL. */
const struct opt *opts_find(const struct opt *opts, const char *name);
/* Among NULL-terminated `words` the one that `text` probably meant, or NULL when none is near. */
const char *nearest_word(const char *text, const char *const *words);
/* "512", "64K", "1.5G" in bytes; -EINVAL for what is no size or no whole number of bytes, -ERANGE beyond 2^64. */
int parse_size(const char *text, uint64_t *ret) must_check;
