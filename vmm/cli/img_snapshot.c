/* `bothy img snapshot`: the states of the disk that are kept inside the image. */
#include <inttypes.h>
#include <time.h>

#include "vmm/base/cleanup.h"
#include "vmm/cli/img.h"

static uint64_t number(const json_t *snapshot, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(snapshot, key));
}

void img_print_snapshots(const json_t *list)
{
    const json_t *s;
    size_t i;

    if (!json_array_size(list))
        return;
    printf("Snapshot list:\n%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    json_array_foreach(list, i, s)
    {
        uint64_t clock = number(s, "vm-clock-sec");
        time_t when = (time_t)number(s, "date-sec");
        char size[IMG_SIZE_TEXT], date[32], run[40], icount[24] = "";
        struct tm tm;

        localtime_r(&when, &tm);
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
        snprintf(run, sizeof(run), "%02" PRIu64 ":%02" PRIu64 ":%02" PRIu64 ".%03" PRIu64, clock / 3600,
                 clock / 60 % 60, clock % 60, number(s, "vm-clock-nsec") / 1000000);
        if (json_object_get(s, "icount"))
            snprintf(icount, sizeof(icount), "%" PRIu64, number(s, "icount"));
        printf("%-9s %-16s %8s%20s%13s%11s\n", json_string_value(json_object_get(s, "id")),
               json_string_value(json_object_get(s, "name")), img_size_text(number(s, "vm-state-size"), size), date,
               run, icount);
    }
}
