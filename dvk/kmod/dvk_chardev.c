// SPDX-License-Identifier: GPL-2.0
/*
 * The character devices: /dev/dvk for control and /dev/dvk-dc<N> for each container.
 *
 * One region of minors covers all containers, so that making a container only adds a device node;
 * whether a minor has a container is for Rust to say at open.
 */
#include <linux/capability.h>
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/device/class.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/user_namespace.h>

#include "dvk_shim.h"

static dev_t dvk_region;
static struct cdev dvk_cdev;

static char *dvk_devnode(const struct device *dev, umode_t *mode)
{
	/* Whoever makes a container decides who may use it, by bind mounts and chown. */
	if (mode)
		*mode = 0600;
	return NULL;
}

static const struct class dvk_class = {
	.name = "dvk",
	.devnode = dvk_devnode,
};

static int dvk_open(struct inode *inode, struct file *file)
{
	return dvk_file_open(iminor(inode) - MINOR(dvk_region), file->f_mode & FMODE_WRITE,
			     &file->private_data);
}

static int dvk_release(struct inode *inode, struct file *file)
{
	dvk_file_release(file->private_data);
	return 0;
}

static long dvk_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return dvk_file_ioctl(file->private_data, cmd, arg);
}

static __poll_t dvk_poll(struct file *file, struct poll_table_struct *table)
{
	return dvk_file_poll(file->private_data, file, table);
}

static const struct file_operations dvk_fops = {
	.owner = THIS_MODULE,
	.open = dvk_open,
	.release = dvk_release,
	.unlocked_ioctl = dvk_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.poll = dvk_poll,
	.llseek = noop_llseek,
};

int dvk_chardev_init(void)
{
	int err;

	err = alloc_chrdev_region(&dvk_region, 0, DVK_MINORS, "dvk");
	if (err)
		return err;
	err = class_register(&dvk_class);
	if (err)
		goto free_region;
	cdev_init(&dvk_cdev, &dvk_fops);
	dvk_cdev.owner = THIS_MODULE;
	err = cdev_add(&dvk_cdev, dvk_region, DVK_MINORS);
	if (err)
		goto free_class;
	err = dvk_chardev_add(DVK_MINOR_CONTROL, "dvk");
	if (err)
		goto free_cdev;
	return 0;

free_cdev:
	cdev_del(&dvk_cdev);
free_class:
	class_unregister(&dvk_class);
free_region:
	unregister_chrdev_region(dvk_region, DVK_MINORS);
	return err;
}

int dvk_chardev_add(u32 minor, const char *name)
{
	struct device *dev;

	dev = device_create(&dvk_class, NULL, dvk_region + minor, NULL, "%s", name);
	return PTR_ERR_OR_ZERO(dev);
}

void dvk_chardev_remove(u32 minor)
{
	device_destroy(&dvk_class, dvk_region + minor);
}

bool dvk_may_control(void)
{
	return capable(CAP_SYS_ADMIN) && current_user_ns() == &init_user_ns;
}
