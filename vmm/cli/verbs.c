/* Every verb of bothy, in the order in which help lists them. */
#include "vmm/cli/cli.h"

extern const struct cli_verb verb_ctl, verb_doctor, verb_help, verb_img, verb_run, verb_test;

const struct cli_verb *const cli_verbs[] = {
    &verb_help, &verb_run, &verb_test, &verb_ctl, &verb_img, &verb_doctor, NULL,
};
