/* What every message and every sample goes through, in C.

   Each function does what a few lines of Python do where this has not been compiled, and gives the
   same. Its stub, _native.pyi, describes them. They keep Python's lock: none of them ever waits, and
   whoever lets go of the lock for a microsecond may get it back milliseconds later. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The best of a few variants is chosen when this is loaded; musl cannot. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__)
#define FOR_SEVERAL_PROCESSORS __attribute__((target_clones("fma", "default")))
#else
#define FOR_SEVERAL_PROCESSORS
#endif

static char received[64 * 1024];

static int would_wait(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

static int takes(const char *name, Py_ssize_t wanted, Py_ssize_t given)
{
    if (wanted == given)
        return 1;
    PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, not %zd", name, wanted, given);
    return 0;
}

static PyObject *receive(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (!takes("receive", 2, count))
        return NULL;
    int fd = (int)PyLong_AsLong(args[0]);
    Py_ssize_t most = PyLong_AsSsize_t(args[1]);
    if (PyErr_Occurred())
        return NULL;
    if (most < 0 || most > (Py_ssize_t)sizeof received)
        most = sizeof received;
    ssize_t size = recv(fd, received, (size_t)most, MSG_DONTWAIT);
    if (size >= 0)
        return PyBytes_FromStringAndSize(received, size);
    if (would_wait())
        Py_RETURN_NONE;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *send_now(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (!takes("send", 2, count))
        return NULL;
    int fd = (int)PyLong_AsLong(args[0]);
    if (PyErr_Occurred())
        return NULL;
    Py_buffer data;
    if (PyObject_GetBuffer(args[1], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    ssize_t size = send(fd, data.buf, (size_t)data.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    PyBuffer_Release(&data);
    if (size >= 0)
        return PyLong_FromSsize_t(size);
    if (would_wait())
        return PyLong_FromLong(0);
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *drain(PyObject *module, PyObject *fd_object)
{
    int fd = (int)PyLong_AsLong(fd_object);
    if (PyErr_Occurred())
        return NULL;
    uint64_t expirations;
    if (read(fd, &expirations, sizeof expirations) >= 0 || would_wait())
        Py_RETURN_NONE;
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* Sound is 16-bit PCM, little endian. */

static int16_t sample_at(const unsigned char *pcm, Py_ssize_t index)
{
    uint16_t sample;
    memcpy(&sample, pcm + 2 * index, sizeof sample);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    sample = __builtin_bswap16(sample);
#endif
    return (int16_t)sample;
}

static void put_sample(unsigned char *pcm, Py_ssize_t index, int value)
{
    uint16_t sample = (uint16_t)value;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    sample = __builtin_bswap16(sample);
#endif
    memcpy(pcm + 2 * index, &sample, sizeof sample);
}

static PyObject *swing(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    static const int parts[] = {9, 8, 6, 12};
    if (!takes("swing", 3, count))
        return NULL;
    char *bytes;
    Py_ssize_t length, start = PyLong_AsSsize_t(args[1]), size = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred() || PyBytes_AsStringAndSize(args[0], &bytes, &length) < 0)
        return NULL;
    if (start < 0 || size < 0 || size > length || start > length - size) {
        PyErr_SetString(PyExc_ValueError, "a frame that goes beyond its PCM");
        return NULL;
    }
    const unsigned char *pcm = (const unsigned char *)bytes + start;
    Py_ssize_t samples = size / 2;
    if (!samples)
        return PyLong_FromLong(0);
    int low = sample_at(pcm, 0), high = low;
    int part = 0;
    for (Py_ssize_t at = 0; at < samples;) {
        int value = sample_at(pcm, at);
        if (value > high)
            high = value;
        else if (value < low)
            low = value;
        Py_ssize_t distance = samples * parts[part] / 160;
        at += distance > 1 ? distance : 1;
        part = (part + 1) % 4;
    }
    return PyLong_FromLong(high - low);
}

/* A polyphase filter. Output n lies n * down / up inputs after the one that `width` of them stand
   around, and has the taps of the fraction that is left, in 1 / up. So every `up`th output has the
   same taps, and the inputs around it begin `down` later: where every `down`th input stands beside
   the next, in a row of its own, so do those that one tap is for, and a processor multiplies many
   at once. */

struct filter {
    const float *taps;
    Py_ssize_t width, up, down;
};

typedef float lanes __attribute__((vector_size(32), aligned(sizeof(float)), may_alias));

/* So many sums fill the processor's registers, and its pipelines. */
enum { SUMS = 64 };

FOR_SEVERAL_PROCESSORS
static void spread(const unsigned char *pcm, Py_ssize_t samples, Py_ssize_t down, float *rows,
                   Py_ssize_t row)
{
    if (down == 1) {
        for (Py_ssize_t index = 0; index < samples; index++)
            rows[index] = sample_at(pcm, index);
        return;
    }
    for (Py_ssize_t each = 0; each < down; each++, rows += row)
        for (Py_ssize_t at = 0, index = each; index < samples; at++, index += down)
            rows[at] = sample_at(pcm, index);
}

/* `count` outputs from `first` on, `up` apart, into every `up`th of `sums`. */
FOR_SEVERAL_PROCESSORS
static void sum_many(const struct filter *filter, const float *rows, Py_ssize_t row,
                     Py_ssize_t first, Py_ssize_t count, float *sums)
{
    Py_ssize_t up = filter->up, down = filter->down, base = first * down / up;
    const float *taps = filter->taps + first * down % up * filter->width;
    for (Py_ssize_t done = 0; done < count; done += SUMS) {
        lanes a = {0}, b = {0}, c = {0}, d = {0}, e = {0}, f = {0}, g = {0}, h = {0};
        for (Py_ssize_t part = 0; part < down && part < filter->width; part++) {
            const float *inputs = rows + (base + part) % down * row + (base + part) / down + done;
            for (Py_ssize_t tap = part; tap < filter->width; tap += down, inputs++) {
                const lanes *in = (const lanes *)inputs;
                float weight = taps[tap];
                a += in[0] * weight;
                b += in[1] * weight;
                c += in[2] * weight;
                d += in[3] * weight;
                e += in[4] * weight;
                f += in[5] * weight;
                g += in[6] * weight;
                h += in[7] * weight;
            }
        }
        lanes all[] = {a, b, c, d, e, f, g, h};
        const float *sum = (const float *)all;
        for (Py_ssize_t each = 0; each < SUMS && done + each < count; each++)
            sums[(done + each) * up] = sum[each];
    }
}

/* The same for outputs of which few have the same taps, one by one, from inputs in one row. */
FOR_SEVERAL_PROCESSORS
static void sum_each(const struct filter *filter, const float *inputs, Py_ssize_t first,
                     Py_ssize_t count, float *sums)
{
    Py_ssize_t base = first * filter->down / filter->up;
    Py_ssize_t fraction = first * filter->down % filter->up;
    for (Py_ssize_t output = 0; output < count; output++) {
        const float *around = inputs + base, *taps = filter->taps + fraction * filter->width;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (Py_ssize_t tap = 0; tap < filter->width; tap++)
            sum += around[tap] * taps[tap];
        sums[output] = sum;
        for (fraction += filter->down; fraction >= filter->up; fraction -= filter->up)
            base++;
    }
}

FOR_SEVERAL_PROCESSORS
static void round_off(const float *sums, Py_ssize_t count, unsigned char *pcm)
{
    /* 1.5 * 2^23: what is added to it loses its fraction, to the nearest, ties to even. It has to be
       below 2^22, and sums of 16 bits by a filter's taps are far below. */
    const float rounder = 12582912.0f;
    for (Py_ssize_t index = 0; index < count; index++) {
        int sample = (int)(sums[index] + rounder - rounder);
        sample = sample > 32767 ? 32767 : sample;
        put_sample(pcm, index, sample < -32768 ? -32768 : sample);
    }
}

static PyObject *filtered(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (!takes("filtered", 6, count))
        return NULL;
    char *pcm, *taps;
    Py_ssize_t pcm_bytes, taps_bytes;
    if (PyBytes_AsStringAndSize(args[0], &pcm, &pcm_bytes) < 0 ||
        PyBytes_AsStringAndSize(args[1], &taps, &taps_bytes) < 0)
        return NULL;
    Py_ssize_t up = PyLong_AsSsize_t(args[2]), down = PyLong_AsSsize_t(args[3]);
    Py_ssize_t start = PyLong_AsSsize_t(args[4]), end = PyLong_AsSsize_t(args[5]);
    if (PyErr_Occurred())
        return NULL;
    if (end <= start)
        return PyBytes_FromStringAndSize(NULL, 0);
    Py_ssize_t samples = pcm_bytes / 2;
    Py_ssize_t width = up > 0 ? taps_bytes / (Py_ssize_t)sizeof(float) / up : 0;
    if (width < 1 || down < 1 || start < 0 || end - 1 > samples * up / down ||
        (end - 1) * down / up + width > samples) {
        PyErr_SetString(PyExc_ValueError, "outputs that these inputs do not determine");
        return NULL;
    }
    struct filter filter = {(const float *)taps, width, up, down};
    Py_ssize_t outputs = end - start;
    int one_by_one = outputs / up < SUMS / 8;
    Py_ssize_t rows = one_by_one ? 1 : down, row = samples / rows + 1 + SUMS;
    PyObject *result = PyBytes_FromStringAndSize(NULL, outputs * 2);
    float *inputs = PyMem_Calloc((size_t)(rows * row + outputs), sizeof(float));
    if (result == NULL || inputs == NULL) {
        Py_XDECREF(result);
        PyMem_Free(inputs);
        return PyErr_NoMemory();
    }
    float *sums = inputs + rows * row;
    spread((const unsigned char *)pcm, samples, rows, inputs, row);
    if (one_by_one)
        sum_each(&filter, inputs, start, outputs, sums);
    else
        for (Py_ssize_t first = 0; first < up; first++)
            sum_many(&filter, inputs, row, start + first, (outputs - first + up - 1) / up,
                     sums + first);
    round_off(sums, outputs, (unsigned char *)PyBytes_AS_STRING(result));
    PyMem_Free(inputs);
    return result;
}

static PyMethodDef functions[] = {
    {"receive", (PyCFunction)(void (*)(void))receive, METH_FASTCALL, NULL},
    {"send", (PyCFunction)(void (*)(void))send_now, METH_FASTCALL, NULL},
    {"drain", drain, METH_O, NULL},
    {"swing", (PyCFunction)(void (*)(void))swing, METH_FASTCALL, NULL},
    {"filtered", (PyCFunction)(void (*)(void))filtered, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "linekit._native",
    .m_size = 0,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
