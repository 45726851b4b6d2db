/* What the board and its firmware tables must know of the power management block. */
#pragma once
#include "devices/core/device.h"

enum {
    PM_EVENT = 0,   /* PM1a event block, 4 bytes */
    PM_CONTROL = 4, /* PM1a control block, 2 bytes */
    PM_TIMER = 8,   /* PM timer, 4 bytes: 32 bits wide */
    PM_RESET = 12,  /* reset register, 1 byte */
    PM_SIZE = 16,

    PM_RESET_VALUE = 1,
    PM_S5_TYPE = 5, /* SLP_TYP that powers off */
};

/* Presses the power button of a "pm" device: a guest with ACPI then shuts down.  Takes the lane; machine running. */
void pm_press_power_button(struct device *d);
