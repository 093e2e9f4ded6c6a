/* Classify raw frames from C: `edgeclf-device classify` runs as a child process, frames go in, JSON lines come out.
 *
 *   cc -std=c11 -Wall -Wextra -O2 -o classify classify.c
 *   ffmpeg -v error -i street.mp4 -vf scale=640:480 -pix_fmt rgb24 -f rawvideo - | ./classify model.tflite 640 480
 *
 * Here the frames come from this program's own stdin; a program with a camera takes them from there. One line is read
 * for each frame written, so that neither side ever waits for the other with a full pipe.
 * The wire is written down in docs/reference/json-lines.md.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_LINE = 1 << 20, MAX_LABEL = 4096 };

typedef struct {
    pid_t process;
    FILE *frames, *lines;
} Child;

/* Start `edgeclf-device classify`; 0 if the system refuses. */
static int start(Child *child, const char *artifact, const char *source)
{
    int to[2], from[2];
    if (pipe(to) != 0 || pipe(from) != 0) return 0;
    child->process = fork();
    if (child->process < 0) return 0;
    if (child->process == 0) {
        dup2(to[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        close(to[0]), close(to[1]), close(from[0]), close(from[1]);
        execlp("edgeclf-device", "edgeclf-device", "classify", artifact, "--source", source, "--json-lines", "-",
               (char *)NULL);
        perror("edgeclf-device");
        _exit(127);
    }
    close(to[0]), close(from[1]);
    child->frames = fdopen(to[1], "wb");
    child->lines = fdopen(from[0], "r");
    return child->frames != NULL && child->lines != NULL;
}

/* End the child by ending its frames; what it returned, as a shell reports it. */
static int finish(Child *child)
{
    int status = 0;
    fclose(child->frames);
    fclose(child->lines);
    while (waitpid(child->process, &status, 0) < 0 && errno == EINTR) {}
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- As much JSON as it takes: the members of the outermost object of a line that is valid JSON. ---- */

static const char *blank(const char *at)
{
    return at + strspn(at, " \t");
}

/* Behind the string that begins at its opening quote. */
static const char *skip_string(const char *at)
{
    for (at++; *at && *at != '"'; at++)
        if (*at == '\\' && at[1]) at++;
    return *at ? at + 1 : at;
}

/* Behind the value: a string, a number, a word, or an object or array with all that is in it. */
static const char *skip_value(const char *at)
{
    int depth = 0;
    do {
        if (*at == '"') {
            at = skip_string(at);
            continue;
        }
        if (*at == '{' || *at == '[') depth++;
        if (*at == '}' || *at == ']') depth--;
        if (*at) at++;
    } while (*at && (depth > 0 || !strchr(",}]", *at)));
    return at;
}

/* The value of a member of the outermost object, or NULL. */
static const char *member(const char *line, const char *name)
{
    const char *at = blank(line);
    if (*at++ != '{') return NULL;
    for (;;) {
        at = blank(at);
        if (*at != '"') return NULL;
        const char *key = at + 1;
        at = skip_string(at);
        const int found = strlen(name) == (size_t)(at - key - 1) && strncmp(key, name, strlen(name)) == 0;
        at = blank(at);
        if (*at++ != ':') return NULL;
        at = blank(at);
        if (found) return at;
        at = blank(skip_value(at));
        if (*at++ != ',') return NULL;
    }
}

static char *put_utf8(char *to, uint32_t code)
{
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xC0 | code >> 6);
        *to++ = (char)(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        *to++ = (char)(0xE0 | code >> 12);
        *to++ = (char)(0x80 | (code >> 6 & 0x3F));
        *to++ = (char)(0x80 | (code & 0x3F));
    } else {
        *to++ = (char)(0xF0 | code >> 18);
        *to++ = (char)(0x80 | (code >> 12 & 0x3F));
        *to++ = (char)(0x80 | (code >> 6 & 0x3F));
        *to++ = (char)(0x80 | (code & 0x3F));
    }
    return to;
}

static int hexadecimal(const char *at, uint32_t *code)
{
    *code = 0;
    for (int i = 0; i < 4; i++) {
        const char *digits = "0123456789abcdef", *digit = at[i] ? strchr(digits, at[i] | 0x20) : NULL;
        if (digit == NULL) return 0;
        *code = *code << 4 | (uint32_t)(digit - digits);
    }
    return 1;
}

/* A string as UTF-8; 0 if it is none, or longer than size. */
static int string(const char *at, char *to, size_t size)
{
    static const char from[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char *end = to + size;
    if (at == NULL || *at++ != '"') return 0;
    while (*at && *at != '"') {
        uint32_t code = 0, low = 0;
        if (end - to < 5) return 0;
        if (*at != '\\') {
            *to++ = *at++;
        } else if (at[1] == 'u') {
            if (!hexadecimal(at + 2, &code)) return 0;
            at += 6;
            if (code >> 10 == 0x36 && at[0] == '\\' && at[1] == 'u' && hexadecimal(at + 2, &low) && low >> 10 == 0x37) {
                code = 0x10000 + ((code & 0x3FF) << 10) + (low & 0x3FF);
                at += 6;
            }
            to = put_utf8(to, code);
        } else {
            const char *escape = at[1] ? strchr(from, at[1]) : NULL;
            if (escape == NULL) return 0;
            *to++ = meant[escape - from];
            at += 2;
        }
    }
    *to = '\0';
    return *at == '"';
}

/* ---- */

/* Give the child a frame and print what it says of it; 0 if it says nothing more. */
static int classify(Child *child, const unsigned char *frame, size_t bytes)
{
    static char line[MAX_LINE], label[MAX_LABEL];
    if (fwrite(frame, 1, bytes, child->frames) != bytes || fflush(child->frames) != 0) return 0;
    if (fgets(line, sizeof line, child->lines) == NULL) return 0;
    const char *score = member(line, "score");
    if (!string(member(line, "label"), label, sizeof label) || score == NULL) {
        fprintf(stderr, "not understood: %s", line);
        return 0;
    }
    printf("%s %.3f\n", label, strtod(score, NULL));
    fflush(stdout);
    return 1;
}

int main(int count, char **arguments)
{
    const long width = count == 4 ? strtol(arguments[2], NULL, 10) : 0;
    const long height = count == 4 ? strtol(arguments[3], NULL, 10) : 0;
    if (width < 1 || height < 1 || width > 16384 || height > 16384) {
        fprintf(stderr, "usage: %s ARTIFACT WIDTH HEIGHT < frames of rgb24\n", arguments[0]);
        return 2;
    }
    const size_t bytes = (size_t)width * (size_t)height * 3;
    unsigned char *frame = malloc(bytes);
    char source[64];
    Child child;
    snprintf(source, sizeof source, "stdin:%ldx%ld:rgb", width, height);
    signal(SIGPIPE, SIG_IGN); /* a child that died is seen in fwrite's answer */
    if (frame == NULL || !start(&child, arguments[1], source)) {
        perror("start");
        return 1;
    }
    while (fread(frame, 1, bytes, stdin) == bytes && classify(&child, frame, bytes)) {}
    free(frame);
    return finish(&child);
}
