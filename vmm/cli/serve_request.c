#include "vmm/cli/serve_request.h"

#include <jansson.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/opt.h"
#include "vmm/machine/config.h"

#define VM_OPTION O_U32(struct serve_request, vm, "vm", NULL, 1, UINT32_MAX, "which guest")
#define TIMEOUT_OPTION \
    O_U32(struct serve_request, timeout, "timeout", "0", 0, SERVE_SECONDS_MAX, "seconds; 0: as --timeout says")

static const struct opt create_opts[] = {
    O_U32(struct serve_request, count, "count", "1", 1, SERVE_GUESTS_MAX, "how many"),
    O_END,
};
static const struct opt run_opts[] = {VM_OPTION, TIMEOUT_OPTION, O_END};
static const struct opt copy_opts[] = {
    VM_OPTION,
    TIMEOUT_OPTION,
    O_STR(struct serve_request, from, "from", NULL, "the file"),
    O_STR(struct serve_request, to, "to", NULL, "its copy"),
    O_END,
};
static const struct opt vm_opts[] = {VM_OPTION, O_END};

static const struct {
    const char *name;
    const struct opt *opts;
    const char *own; /* a member that is no option */
} verbs[] = {
    [SERVE_CREATE] = {"create", create_opts, "machine"},
    [SERVE_RUN] = {"run", run_opts, "argv"},
    [SERVE_PUT] = {"put", copy_opts, NULL},
    [SERVE_GET] = {"get", copy_opts, NULL},
    [SERVE_DIAGNOSE] = {"diagnose", vm_opts, NULL},
    [SERVE_RESET] = {"reset", vm_opts, NULL},
    [SERVE_DESTROY] = {"destroy", vm_opts, NULL},
};
static_assert(array_len(verbs) == SERVE_VERBS, "each has a row");

const char *serve_verb_name(enum serve_verb verb)
{
    return verbs[verb].name;
}

static int find_verb(json_t *root, enum serve_verb *ret, struct err *err)
{
    const char *name = json_string_value(json_object_get(root, "command")), *words[SERVE_VERBS + 1] = {NULL}, *near;

    if (!name)
        return err_set(err, EINVAL, "no \"command\"; ask as in {\"command\": \"create\"}");
    for (unsigned i = 0; i < SERVE_VERBS; i++) {
        words[i] = verbs[i].name;
        if (!strcmp(name, verbs[i].name)) {
            *ret = (enum serve_verb)i;
            return 0;
        }
    }
    near = nearest_word(name, words);
    if (near)
        return err_set(err, ENOENT, "unknown command \"%.64s\"; did you mean \"%s\"?", name, near);
    return err_set(err, ENOENT,
                   "unknown command \"%.64s\"; there are create, run, put, get, diagnose, reset and destroy", name);
}

static int take_words(json_t *argv, char ***ret, struct err *err)
{
    size_t n = json_array_size(argv);

    if (!n || n > SERVE_WORDS_MAX)
        return err_set(err, EINVAL, "\"argv\" is to have 1 to %d words, as in [\"uname\", \"-r\"]", SERVE_WORDS_MAX);
    *ret = xcalloc(n + 1, sizeof(**ret));
    for (size_t i = 0; i < n; i++) {
        const char *word = json_string_value(json_array_get(argv, i));

        if (!word)
            return err_set(err, EINVAL, "\"argv\" has an element that is no string");
        (*ret)[i] = xstrdup(word);
    }
    return 0;
}

static int take_machine(json_t *machine, char **ret, struct err *err)
{
    if (!machine)
        return 0;
    if (!json_is_object(machine))
        return err_set(err, EINVAL, "\"machine\" is no object; write as in {\"memory\": \"1G\"}");
    *ret = json_dumps(machine, JSON_COMPACT);
    if (!*ret)
        abort();
    return 0;
}

static int parse_verb(json_t *root, struct serve_request *q, struct err *err)
{
    const char *own[] = {"id", "command", verbs[q->verb].own, NULL};
    const struct opt *opts = verbs[q->verb].opts;
    char *text cleanup_free = NULL;
    int r;

    opts_default(opts, q);
    if ((r = config_options_from_json(root, own, &text, err)) < 0 || (r = opts_parse(opts, q, NULL, text, err)) < 0)
        return r;
    if (opts == copy_opts && (!q->from || !*q->from || !q->to || !*q->to))
        return err_set(err, EINVAL, "give the paths of two files, \"from\" and \"to\"");
    if (q->verb == SERVE_RUN)
        return take_words(json_object_get(root, "argv"), &q->argv, err);
    return q->verb == SERVE_CREATE ? take_machine(json_object_get(root, "machine"), &q->machine, err) : 0;
}

static int parse_object(json_t *root, struct serve_request *q, struct err *err)
{
    json_t *id = json_object_get(root, "id");
    int r;

    if (!json_is_object(root))
        return err_set(err, EINVAL, "not an object; ask as in {\"command\": \"create\"}");
    q->has_id = json_is_integer(id);
    q->id = json_integer_value(id);
    if (id && !q->has_id)
        return err_set(err, EINVAL, "\"id\" is no integer");
    r = find_verb(root, &q->verb, err);
    if (r < 0)
        return r;
    r = parse_verb(root, q, err);
    return r < 0 ? err_wrap(err, "%s", serve_verb_name(q->verb)) : 0;
}

int serve_request_parse(const char *line, size_t n, struct serve_request *ret, struct err *err)
{
    json_error_t je;
    json_t *root = json_loadb(line, n, JSON_REJECT_DUPLICATES, &je);
    int r;

    *ret = (struct serve_request){.verb = SERVE_VERBS};
    if (!root)
        return err_set(err, EINVAL, "not JSON: %s", je.text);
    r = parse_object(root, ret, err);
    json_decref(root);
    return r;
}

void serve_request_clear(struct serve_request *q)
{
    for (char **w = q->argv; w && *w; w++)
        free(*w);
    free(q->argv);
    free(q->machine);
    free(q->from);
    free(q->to);
    *q = (struct serve_request){.verb = SERVE_VERBS};
}
