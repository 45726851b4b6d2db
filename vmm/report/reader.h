/* Takes in all that a run says, and makes its report of it: tests by KTAP, and how its output and kernel log ended. */
#pragma once
#include "vmm/report/report.h"

struct reader;

/* Never fails. */
struct reader *reader_create(void);
void reader_destroy(struct reader *r); /* accepts NULL */
/* Of any of the run's streams, as they come; `now_ns` is a monotonic time. */
void reader_feed(struct reader *r, enum test_stream s, const void *bytes, size_t n, uint64_t now_ns);
/* The run is over, with run->result: all that is known goes into `run`, in place of what an earlier try left there. */
void reader_settle(struct reader *r, struct report_run *run);
