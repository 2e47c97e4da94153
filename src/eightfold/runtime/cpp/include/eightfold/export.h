/* Purpose: marks what the library exports; all else is hidden. */
#ifndef EIGHTFOLD_EXPORT_H
#define EIGHTFOLD_EXPORT_H

#if defined(__GNUC__)
#define EIGHTFOLD_EXPORT __attribute__((visibility("default")))
#else
#define EIGHTFOLD_EXPORT
#endif

#endif
