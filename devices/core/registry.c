/* All device classes of this build: the list comes from the meson.build files of the devices' folders. */
#include "devices/core/device.h"

#define DEVICE(cls) extern const struct device_class cls;
#include "device_list.h"
#undef DEVICE

const struct device_class *const device_classes[] = {
#define DEVICE(cls) &cls,
#include "device_list.h"
#undef DEVICE
    NULL,
};

const struct device_class *device_class_find(const char *name)
{
    for (const struct device_class *const *c = device_classes; *c; c++)
        if (!strcmp((*c)->name, name))
            return *c;
    return NULL;
}
