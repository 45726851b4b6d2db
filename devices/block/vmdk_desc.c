/*
 * The descriptor of a VMDK image ["Virtual Disk Format 5.0", The Descriptor File]: text of lines KEY=VALUE and of lines
 * that each describe an extent: ACCESS SECTORS TYPE "NAME" OFFSET.
 */
#include <inttypes.h>
#include <stdio.h>
#include <strings.h>

#include "devices/block/vmdk.h"
#include "vmm/base/cleanup.h"

enum { EXTENTS_MAX = 1024, NAME_MAX_ = 511 };

/* Is the line KEY = VALUE?  The value without its quotes, cut to `n`. */
static bool value_of(const char *line, const char *key, char *ret, size_t n)
{
    size_t len = strlen(key);

    if (strncasecmp(line, key, len) != 0)
        return false;
    line += len;
    line += strspn(line, " \t");
    if (*line++ != '=')
        return false;
    line += strspn(line, " \t");
    if (*line == '"') {
        line++;
        len = strcspn(line, "\"");
    } else {
        len = strcspn(line, " \t\r");
    }
    snprintf(ret, n, "%.*s", (int)min_u64(len, n - 1), line);
    return true;
}

static int parse_extent(struct blk *b, const char *line, struct vmdk_line *ret, struct err *err)
{
    static const struct {
        const char *word;
        enum vmdk_kind kind;
    } kinds[] = {{"FLAT", VMDK_FLAT}, {"VMFS", VMDK_FLAT}, {"SPARSE", VMDK_SPARSE}, {"ZERO", VMDK_ZERO}};
    char access[16], type[16], name[NAME_MAX_ + 1];
    struct vmdk_line l = {0};
    size_t i = 0;
    int n = sscanf(line, "%15s %" SCNu64 " %15s \"%511[^\"]\" %" SCNu64, access, &l.sectors, type, name, &l.off);

    if (n < 3)
        return blkimg_bad(b, err, "its descriptor has a line that is not understood: %.80s", line);
    while (i < array_len(kinds) && strcmp(type, kinds[i].word) != 0)
        i++;
    if (i == array_len(kinds))
        return blkimg_refuse(b, err,
                             "its descriptor has an extent of type %s, which is not known, only FLAT, VMFS, SPARSE "
                             "and ZERO",
                             type);
    l.kind = kinds[i].kind;
    if (l.kind != VMDK_ZERO && n < 4)
        return blkimg_bad(b, err, "its descriptor has an extent without a name: %.80s", line);
    if (!l.sectors || l.sectors > INT64_MAX / VMDK_SECTOR || l.off > INT64_MAX / VMDK_SECTOR)
        return blkimg_bad(b, err, "its descriptor has an extent of %" PRIu64 " sectors", l.sectors);
    if (l.kind != VMDK_ZERO)
        l.name = xstrdup(name);
    *ret = l;
    return 0;
}

static const char type_letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

static int parse_line(struct blk *b, const char *line, struct vmdk_desc *d, struct err *err)
{
    char value[NAME_MAX_ + 1];

    if (value_of(line, "CID", value, sizeof(value))) {
        d->cid = (uint32_t)strtoul(value, NULL, 16);
    } else if (value_of(line, "parentCID", value, sizeof(value))) {
        d->parent_cid = (uint32_t)strtoul(value, NULL, 16);
    } else if (value_of(line, "createType", value, sizeof(value))) {
        snprintf(d->type, sizeof(d->type), "%.*s", (int)strspn(value, type_letters), value);
    } else if (value_of(line, "parentFileNameHint", value, sizeof(value))) {
        free(d->parent);
        d->parent = xstrdup(value);
    } else if (!strncmp(line, "RW ", 3) || !strncmp(line, "RDONLY ", 7) || !strncmp(line, "NOACCESS ", 9)) {
        if (d->nlines == EXTENTS_MAX)
            return blkimg_refuse(b, err, "it has more than %d extents", EXTENTS_MAX);
        if (!d->lines)
            d->lines = xcalloc(EXTENTS_MAX, sizeof(*d->lines));
        return parse_extent(b, line, &d->lines[d->nlines], err) ?: (d->nlines++, 0);
    }
    return 0;
}

/* Messages show parts of it. */
static bool is_text(const char *text)
{
    for (; *text; text++)
        if ((uint8_t)*text < ' ' && !strchr("\t\r\n", *text))
            return false;
    return true;
}

int vmdk_desc_parse(struct blk *b, const char *text, struct vmdk_desc *ret, struct err *err)
{
    int rc = 0;

    ret->cid = ret->parent_cid = UINT32_MAX;
    if (!is_text(text))
        return blkimg_bad(b, err, "its descriptor is no text");
    while (*text && !rc) {
        size_t n = strcspn(text, "\n");
        char line[1024];

        snprintf(line, sizeof(line), "%.*s", (int)min_u64(n, sizeof(line) - 1), text);
        rc = parse_line(b, line + strspn(line, " \t"), ret, err);
        text += n + (text[n] == '\n');
    }
    return rc;
}

void vmdk_desc_fini(struct vmdk_desc *d)
{
    for (unsigned i = 0; i < d->nlines; i++)
        free(d->lines[i].name);
    free(d->lines);
    free(d->parent);
}
