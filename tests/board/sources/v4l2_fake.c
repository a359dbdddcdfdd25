/* A camera's controls as a driver has them, against the kernel's own header: the layout of every structure and the
 * numbers of the requests are those of <linux/videodev2.h>, not ours. */
#include <errno.h>
#include <linux/videodev2.h>
#include <string.h>

struct control {
    __u32 id;
    int minimum, maximum, step, value;
    __u32 needs; /* this other control must be `at`, or the control is inactive */
    int at;
    int is_stubborn; /* takes every value and keeps its own */
};

static struct control controls[] = {
    {V4L2_CID_EXPOSURE_AUTO, 0, 3, 1, V4L2_EXPOSURE_APERTURE_PRIORITY, 0, 0, 0},
    {V4L2_CID_EXPOSURE_AUTO_PRIORITY, 0, 1, 1, 1, 0, 0, 0},
    {V4L2_CID_EXPOSURE_ABSOLUTE, 3, 2047, 1, 250, V4L2_CID_EXPOSURE_AUTO, V4L2_EXPOSURE_MANUAL, 0},
    {V4L2_CID_AUTO_WHITE_BALANCE, 0, 1, 1, 1, 0, 0, 0},
    {V4L2_CID_WHITE_BALANCE_TEMPERATURE, 2000, 6500, 10, 4000, V4L2_CID_AUTO_WHITE_BALANCE, 0, 0},
    {V4L2_CID_FOCUS_ABSOLUTE, 0, 250, 5, 0, 0, 0, 0}, /* and no FOCUS_AUTO */
    {V4L2_CID_GAIN, 0, 100, 1, 7, 0, 0, 1},
};

static struct control *find(__u32 id) {
    for (unsigned i = 0; i < sizeof controls / sizeof *controls; i++)
        if (controls[i].id == id) return &controls[i];
    return 0;
}

static int query(struct v4l2_queryctrl *asked) {
    const struct control *found = find(asked->id);
    if (!found) return EINVAL;
    asked->type = V4L2_CTRL_TYPE_INTEGER;
    strcpy((char *)asked->name, "a control");
    asked->minimum = found->minimum;
    asked->maximum = found->maximum;
    asked->step = found->step;
    return 0;
}

static int set(struct control *one, int value) {
    const struct control *other = one->needs ? find(one->needs) : 0;
    if (other && other->value != one->at) return EACCES;
    value = value < one->minimum ? one->minimum : value > one->maximum ? one->maximum : value;
    value = one->minimum + (value - one->minimum) / one->step * one->step;
    if (!one->is_stubborn) one->value = value;
    return 0;
}

static int access_all(struct v4l2_ext_controls *all, int is_set) {
    if (all->which != V4L2_CTRL_WHICH_CUR_VAL) return EINVAL;
    for (__u32 i = 0; i < all->count; i++) {
        struct control *found = find(all->controls[i].id);
        all->error_idx = i;
        if (!found) return EINVAL;
        if (is_set) {
            const int error = set(found, all->controls[i].value);
            if (error) return error;
        }
        all->controls[i].value = found->value;
    }
    return 0;
}

/* 0, or the error number */
int fake_ioctl(unsigned long request, void *argument) {
    switch (request) {
        case VIDIOC_QUERYCTRL: return query(argument);
        case VIDIOC_G_EXT_CTRLS: return access_all(argument, 0);
        case VIDIOC_S_EXT_CTRLS: return access_all(argument, 1);
        default: return ENOTTY;
    }
}

unsigned fake_control_bytes(void) { return sizeof(struct v4l2_ext_control); }
int fake_value(__u32 id) { return find(id)->value; }
