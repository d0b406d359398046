// SPDX-License-Identifier: GPL-2.0
/*
 * The tables under /sys/kernel/debug/dvk. A table is walked row by row: Rust says which row comes
 * next and writes it into the buffer of the seq_file. No lock of the driver is held between two
 * rows, nor while the buffer is copied to user memory.
 */
#include <linux/dcache.h>
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/seq_file.h>

#include "dvk_shim.h"

static struct dentry *dvk_folder;

/*
 * The position in a file is the number of a row. Numbers grow along a table and have gaps: Rust
 * finds the first row from a number on. An iterator is the number plus one, since NULL is the end.
 */
static void *dvk_row(struct seq_file *file, loff_t *position)
{
	s64 row = dvk_table_find((unsigned long)file->private, *position);

	if (row < 0)
		return NULL;
	*position = row;
	return (void *)(unsigned long)(row + 1);
}

static void *dvk_row_start(struct seq_file *file, loff_t *position)
{
	return dvk_row(file, position);
}

static void *dvk_row_next(struct seq_file *file, void *iterator, loff_t *position)
{
	++*position;
	return dvk_row(file, position);
}

static void dvk_row_stop(struct seq_file *file, void *iterator)
{
}

static int dvk_row_show(struct seq_file *file, void *iterator)
{
	u64 row = (unsigned long)iterator - 1;

	/* What was there when the row was found may be gone. */
	return dvk_table_show((unsigned long)file->private, row, file) ? 0 : SEQ_SKIP;
}

static const struct seq_operations dvk_table_rows = {
	.start = dvk_row_start,
	.next = dvk_row_next,
	.stop = dvk_row_stop,
	.show = dvk_row_show,
};

static int dvk_table_open(struct inode *inode, struct file *file)
{
	int err;

	/* The same right as for the control device, which tells the same. */
	if (!dvk_may_control())
		return -EPERM;
	err = seq_open(file, &dvk_table_rows);
	if (!err)
		((struct seq_file *)file->private_data)->private = inode->i_private;
	return err;
}

static const struct file_operations dvk_table_fops = {
	.owner = THIS_MODULE,
	.open = dvk_table_open,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = seq_release,
};

/* A node does without tables where they cannot be made: nothing depends on them. */
void dvk_debugfs_init(void)
{
	dvk_folder = debugfs_create_dir("dvk", NULL);
	if (!IS_ERR(dvk_folder))
		d_inode(dvk_folder)->i_mode = S_IFDIR | 0700;
}

void dvk_debugfs_add(const char *name, u32 table)
{
	debugfs_create_file(name, 0400, dvk_folder, (void *)(unsigned long)table, &dvk_table_fops);
}

void dvk_seq_write(struct seq_file *file, const char *text, size_t len)
{
	seq_write(file, text, len);
}
