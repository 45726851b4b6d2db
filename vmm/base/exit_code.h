/* What bothy ends with, as people know it from containers; other codes are the guest's own, by the debug exit port. */
#pragma once

enum exit_code {
    EXIT_ORDERLY = 0,
    EXIT_TIMEOUT = 124,
    EXIT_BOTHY = 125,   /* bothy could not do what was asked */
    EXIT_CRASHED = 126, /* the guest panicked or could not go on */
    EXIT_INTERRUPTED = 130,
};
