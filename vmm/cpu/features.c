/* [Intel SDM vol. 2A, CPUID; AMD APM vol. 3 appendix E; KVM's own leaves: Documentation/virt/kvm/x86/cpuid.rst] */
#include "vmm/cpu/features.h"

#include <stdio.h>

#include "vmm/base/cleanup.h"
#include "vmm/base/opt.h"

/* One register: the names of bits 0, 1, 2 … in order, "-" where a bit has none. */
struct feature_word {
    uint32_t fn, idx;
    enum cpuid_reg reg;
    const char *names;
};

static const struct feature_word words[] = {
    {0x1, 0, CPUID_EDX,
     "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov "
     "pat pse36 pn clflush - dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe"},
    {0x1, 0, CPUID_ECX,
     "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm "
     "- pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c rdrand hypervisor"},
    {0x6, 0, CPUID_EAX, "dtherm ida arat - pln - pts hwp hwp_notify hwp_act_window hwp_epp hwp_pkg_req"},
    {0x7, 0, CPUID_EBX,
     "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm - mpx rdt_a "
     "avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni "
     "avx512bw avx512vl"},
    {0x7, 0, CPUID_ECX,
     "- avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme "
     "avx512_vpopcntdq - la57 - - - - - rdpid - bus_lock_detect cldemote - movdiri movdir64b enqcmd sgx_lc pks"},
    {0x7, 0, CPUID_EDX,
     "- - avx512_4vnniw avx512_4fmaps fsrm uintr - - avx512_vp2intersect srbds_ctrl md_clear rtm_always_abort - - "
     "serialize hybrid_cpu tsxldtrk - pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 ibrs stibp "
     "flush_l1d arch_capabilities core_capabilities ssbd"},
    {0x7, 1, CPUID_EAX,
     "sha512 sm3 sm4 - avx_vnni avx512_bf16 - cmpccxadd - - fzrm fsrs fsrc - - - - fred lkgs wrmsrns nmi_src amx_fp16 "
     "- avx_ifma - - lam"},
    {0xd, 1, CPUID_EAX, "xsaveopt xsavec xgetbv1 xsaves xfd"},
    {0x80000001, 0, CPUID_EDX,
     "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow"},
    {0x80000001, 0, CPUID_ECX,
     "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 "
     "tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx"},
    {0x80000007, 0, CPUID_EDX, "- - - - - - - hw_pstate constant_tsc cpb - proc_feedback"},
    {0x80000008, 0, CPUID_EBX,
     "clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - ibpb - ibrs stibp - stibp_always_on - - - - - amd_ppin "
     "ssbd virt_ssbd ssb_no cppc psfd btc_no - brs"},
    {0x8000000a, 0, CPUID_EDX,
     "npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists - - pausefilter - pfthreshold avic - "
     "v_vmsave_vmload vgif - x2avic - v_spec_ctrl - - - - vnmi"},
    {0x80000021, 0, CPUID_EAX, "no_nested_data_bp - lfence_rdtsc - - - null_sel_clr_base - autoibrs no_smm_ctl_msr"},
    {0x40000001, 0, CPUID_EAX,
     "kvmclock - - kvmclock asyncpf steal_time pv_eoi pv_unhalt - pv_tlb_flush asyncpf_vmexit pv_send_ipi "
     "poll_control pv_sched_yield asyncpf_int - - - - - - - - - kvmclock"},
};

/* The n-th name of the row, with its length; NULL after the last. */
static const char *name_at(const struct feature_word *w, unsigned n, size_t *len)
{
    const char *p = w->names;

    for (; n && p; n--) {
        p = strchr(p, ' ');
        if (p)
            p++;
    }
    if (p)
        *len = strcspn(p, " ");
    return p;
}

bool cpu_feature_find(const char *name, unsigned n, struct cpu_feature *ret)
{
    size_t want = strlen(name), len;
    const char *p;

    if (!strcmp(name, "-"))
        return false;
    for (size_t i = 0; i < array_len(words); i++)
        for (unsigned bit = 0; (p = name_at(&words[i], bit, &len)); bit++)
            if (len == want && !memcmp(p, name, len) && !n--) {
                *ret = (struct cpu_feature){words[i].fn, words[i].idx, words[i].reg, bit};
                return true;
            }
    return false;
}

const char *cpu_feature_nearest(const char *text, char *buf, size_t n)
{
    enum { NAME_MAX_LEN = 24 };
    char names[32 * array_len(words)][NAME_MAX_LEN];
    const char *list[array_len(names) + 1], *near, *p;
    size_t count = 0, len;

    for (size_t i = 0; i < array_len(words); i++)
        for (unsigned bit = 0; (p = name_at(&words[i], bit, &len)); bit++) {
            assert(bit < 32 && len < NAME_MAX_LEN);
            if (*p == '-')
                continue;
            memcpy(names[count], p, len);
            names[count][len] = 0;
            list[count] = names[count];
            count++;
        }
    list[count] = NULL;
    near = nearest_word(text, list);
    if (!near)
        return NULL;
    snprintf(buf, n, "%s", near);
    return buf;
}
