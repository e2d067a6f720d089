/* A kernel of the blueprint residual_linear written by hand against torch's C interface: y = x W^T + b, with rows of
 * WIDTH numbers in float32. Honest unless FAULT names what is wrong with it.
 *
 * ROLE: 1 forward (weight, bias, x), 2 backward (weight, x, gradient), 3 backward for the parameters alone.
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#define FORWARD 1
#define BACKWARD 2
#define PARAMETER_BACKWARD 3
#define FLOAT32 6
#define CPU 0

enum fault {
    NONE, LIES, LIES_ALONE, SLOW, LEAKS, CRASHES_ON_LOAD, CRASHES_IN_RUN, HANGS_ON_LOAD, HANGS_IN_RUN, UNCHECKED,
    SWALLOWS_NAN, CONNECTS, FORKS, EXECUTES, WRITES, REPORTS, RAISES, KEEPS_STATE, EATS_MEMORY
};

typedef void *Tensor;
int32_t aoti_torch_get_data_ptr(Tensor, void **);
int32_t aoti_torch_get_sizes(Tensor, int64_t **);
int32_t aoti_torch_get_strides(Tensor, int64_t **);
int32_t aoti_torch_get_dim(Tensor, int64_t *);
int32_t aoti_torch_get_dtype(Tensor, int32_t *);
int32_t aoti_torch_empty_strided(int64_t, const int64_t *, const int64_t *, int32_t, int32_t, int32_t, Tensor *);
int32_t aoti_torch_delete_tensor_object(Tensor);

#ifdef IMPORTS_SYSTEM
int system(const char *);
int (*volatile kept)(const char *) = system;
#endif

#ifdef IMPORTS_SOCKET
int socket(int, int, int);
int (*volatile kept)(int, int, int) = socket;
#endif

/* System calls by their number: no import tells of them. */
static long call(long number, long a, long b, long c, long d) {
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

__attribute__((constructor)) static void on_load(void) {
    if (FAULT == CRASHES_ON_LOAD) *(volatile int *)8 = 1;
    if (FAULT == HANGS_ON_LOAD) for (;;) __asm__ volatile("");
    if (FAULT == CONNECTS) call(SYS_socket, 2, 1, 0, 0);
    if (FAULT == FORKS) call(SYS_clone, 17, 0, 0, 0);
    if (FAULT == EXECUTES) call(SYS_execve, (long)"/bin/true", 0, 0, 0);
    if (FAULT == WRITES) call(SYS_openat, -100, (long)"left-behind", 0102, 0600);
    if (FAULT == REPORTS) { /* everything it may say in place of the process that opened it */
        static const char lie[] = "{\"kind\": \"stopped\"}\n";
        for (int descriptor = 3; descriptor < 32; descriptor++) call(SYS_write, descriptor, (long)lie, sizeof lie - 1, 0);
        call(SYS_exit_group, 0, 0, 0, 0);
    }
}

static float *data_of(Tensor tensor) {
    void *data;
    aoti_torch_get_data_ptr(tensor, &data);
    return data;
}

static Tensor rows(int64_t num_rows) {
    int64_t sizes[] = {num_rows, WIDTH}, strides[] = {WIDTH, 1};
    Tensor tensor;
    aoti_torch_empty_strided(2, sizes, strides, FLOAT32, CPU, 0, &tensor);
    return tensor;
}

static Tensor row(void) {
    int64_t sizes[] = {WIDTH}, strides[] = {1};
    Tensor tensor;
    aoti_torch_empty_strided(1, sizes, strides, FLOAT32, CPU, 0, &tensor);
    return tensor;
}

static bool is_as_expected(Tensor tensor) {
    int64_t num_dims, *sizes, *strides;
    int32_t dtype;
    aoti_torch_get_dim(tensor, &num_dims);
    aoti_torch_get_sizes(tensor, &sizes);
    aoti_torch_get_strides(tensor, &strides);
    aoti_torch_get_dtype(tensor, &dtype);
    return dtype == FLOAT32 && num_dims == 2 && sizes[1] == WIDTH && strides[1] == 1 && strides[0] == WIDTH;
}

static void forward(float *y, const float *weight, const float *bias, const float *x, int64_t num_rows) {
    for (int64_t b = 0; b < num_rows; b++)
        for (int o = 0; o < WIDTH; o++) {
            float sum = bias[o];
            for (int i = 0; i < WIDTH; i++) sum += weight[o * WIDTH + i] * x[b * WIDTH + i];
            y[b * WIDTH + o] = FAULT == SWALLOWS_NAN && !isfinite(sum) ? 0 : sum;
        }
}

static void to_parameters(float *weight, float *bias, const float *x, const float *g, int64_t num_rows) {
    memset(weight, 0, sizeof(float) * WIDTH * WIDTH);
    memset(bias, 0, sizeof(float) * WIDTH);
    for (int64_t b = 0; b < num_rows; b++)
        for (int o = 0; o < WIDTH; o++) {
            bias[o] += g[b * WIDTH + o];
            for (int i = 0; i < WIDTH; i++) weight[o * WIDTH + i] += g[b * WIDTH + o] * x[b * WIDTH + i];
        }
}

static void to_activation(float *gx, const float *weight, const float *g, int64_t num_rows) {
    memset(gx, 0, sizeof(float) * WIDTH * num_rows);
    for (int64_t b = 0; b < num_rows; b++)
        for (int o = 0; o < WIDTH; o++)
            for (int i = 0; i < WIDTH; i++) gx[b * WIDTH + i] += g[b * WIDTH + o] * weight[o * WIDTH + i];
}

static void misbehave(void) {
    static volatile double waste;
    if (FAULT == CRASHES_IN_RUN) *(volatile int *)8 = 1;
    if (FAULT == HANGS_IN_RUN) for (;;) __asm__ volatile("");
    if (FAULT == SLOW) for (int i = 0; i < 1000000; i++) waste += i;
    static void *volatile lost;
    if (FAULT == LEAKS) memset(lost = malloc(4096), 1, 4096);
    if (FAULT == EATS_MEMORY) for (;;) { if (!(lost = malloc(1 << 26))) abort(); memset(lost, 1, 1 << 26); }
}

static int32_t run(Tensor *inputs, size_t num_inputs, Tensor *outputs) {
    static float last_weight;
    int64_t *sizes, num_rows;
    Tensor checked = inputs[num_inputs - 1];
    int32_t status = FAULT != UNCHECKED && !is_as_expected(checked);
    if (FAULT == RAISES && ROLE != FORWARD) status = 1;
    misbehave();
    if (!status) {
        aoti_torch_get_sizes(checked, &sizes);
        num_rows = sizes[0];
        if (ROLE == FORWARD) {
            outputs[0] = rows(num_rows);
            forward(data_of(outputs[0]), data_of(inputs[0]), data_of(inputs[1]), data_of(inputs[2]), num_rows);
            last_weight = data_of(inputs[0])[0];
            if (FAULT == KEEPS_STATE) data_of(outputs[0])[0] += last_weight;
        } else {
            outputs[0] = rows(WIDTH);
            outputs[1] = row();
            to_parameters(data_of(outputs[0]), data_of(outputs[1]), data_of(inputs[1]), data_of(inputs[2]), num_rows);
            if (ROLE == BACKWARD) {
                outputs[2] = rows(num_rows);
                to_activation(data_of(outputs[2]), data_of(inputs[0]), data_of(inputs[2]), num_rows);
            }
            if (FAULT == LIES || (FAULT == LIES_ALONE && ROLE == PARAMETER_BACKWARD))
                data_of(outputs[0])[WIDTH + 1] += 1e-2f + data_of(outputs[0])[WIDTH + 1] * 0.5f;
        }
    }
    for (size_t i = 0; i < num_inputs; i++) aoti_torch_delete_tensor_object(inputs[i]);
    return status;
}

int32_t AOTInductorModelContainerCreateWithDevice(void **handle, size_t n, const char *device, const char *folder) {
    static int container;
    *handle = &container;
    return 0;
}
int32_t AOTInductorModelContainerRun(void *h, Tensor *in, size_t nin, Tensor *out, size_t nout, void *s, void *p) {
    return run(in, nin, out);
}
int32_t AOTInductorModelContainerRunSingleThreaded(
    void *h, Tensor *in, size_t nin, Tensor *out, size_t nout, void *s, void *p) {
    return run(in, nin, out);
}
int32_t AOTInductorModelContainerGetNumOutputs(void *h, size_t *n) {
    *n = ROLE == FORWARD ? 1 : ROLE == BACKWARD ? 3 : 2;
    return 0;
}
int32_t AOTInductorModelContainerGetNumInputs(void *h, size_t *n) { *n = 3; return 0; }
int32_t AOTInductorModelContainerGetNumConstants(void *h, size_t *n) { *n = 0; return 0; }
int32_t AOTInductorModelContainerGetCallSpec(void *h, const char **in, const char **out) { *in = *out = ""; return 0; }
const char *AOTInductorGetLastError(void) { return "the kernel refuses its inputs"; }

/* What the runner looks for besides, and never calls. */
#define UNUSED(name) int32_t AOTInductorModelContainer##name(void) { return 0; }
UNUSED(Delete) UNUSED(Create) UNUSED(GetInputName) UNUSED(GetOutputName) UNUSED(GetConstantName)
UNUSED(GetConstantOriginalFQN) UNUSED(GetConstantFromFolded) UNUSED(GetConstantType) UNUSED(GetConstantDtype)
UNUSED(GetConstantDataSize) UNUSED(ExtractConstantsMap) UNUSED(ExtractConstantsMapEntries)
UNUSED(UpdateUserManagedConstantBuffer) UNUSED(UpdateUserManagedConstantBufferPairs) UNUSED(UpdateConstantBuffer)
UNUSED(UpdateConstantBufferPairs) UNUSED(UpdateConstantBufferFromCpu) UNUSED(UpdateConstantBufferFromCpuPairs)
UNUSED(UpdateInactiveConstantBuffer) UNUSED(UpdateInactiveConstantBufferPairs) UNUSED(FreeInactiveConstantBuffer)
UNUSED(RunConstantFolding) UNUSED(SwapConstantBuffer) UNUSED(GetConstantsBlobSize)
int32_t AOTInductorModelUpdateConstantsFromBlob(void) { return 0; }
