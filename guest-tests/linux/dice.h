/* For programs in Linux guests that do things at random: the same seed gives the same things. */
#pragma once
#include <stdint.h>

static uint64_t dice_state;

static inline uint64_t dice(uint64_t below) /* 0 to below - 1 */
{
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 7;
    dice_state ^= dice_state << 17;
    return dice_state % below;
}

static inline void dice_seed(unsigned seed)
{
    dice_state = 88172645463325252 + seed;
    for (int i = 0; i < 16; i++) /* seeds that are near each other go apart */
        dice(1);
}
