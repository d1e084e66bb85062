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
#define FOR_SEVERAL_PROCESSORS __attribute__((target_clones("avx2", "default")))
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
    return (int16_t)(uint16_t)(pcm[2 * index] | pcm[2 * index + 1] << 8);
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

/* Outputs `start` to `end` of a polyphase filter: output n lies n * down / up inputs after the one
   that `width` of them stand around, and has the taps of the fraction that is left, in 1 / up. */
FOR_SEVERAL_PROCESSORS
static void filter(const float *inputs, const float *taps, Py_ssize_t width, Py_ssize_t up,
                   Py_ssize_t down, Py_ssize_t start, Py_ssize_t end, unsigned char *outputs)
{
    Py_ssize_t base = start * down / up, fraction = start * down % up;
    for (Py_ssize_t output = start; output < end; output++) {
        const float *around = inputs + base, *weights = taps + fraction * width;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (Py_ssize_t tap = 0; tap < width; tap++)
            sum += around[tap] * weights[tap];
        sum = sum > 32767.0f ? 32767.0f : sum < -32768.0f ? -32768.0f : sum;
        long sample = lrintf(sum);
        *outputs++ = (unsigned char)sample;
        *outputs++ = (unsigned char)(sample >> 8);
        for (fraction += down; fraction >= up; fraction -= up)
            base++;
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
    PyObject *result = PyBytes_FromStringAndSize(NULL, (end - start) * 2);
    float *inputs = PyMem_Malloc((size_t)samples * sizeof(float));
    if (result == NULL || inputs == NULL) {
        Py_XDECREF(result);
        PyMem_Free(inputs);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t index = 0; index < samples; index++)
        inputs[index] = sample_at((const unsigned char *)pcm, index);
    filter(inputs, (const float *)taps, width, up, down, start, end,
           (unsigned char *)PyBytes_AS_STRING(result));
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
