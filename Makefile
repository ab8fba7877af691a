# Shortcuts; the work is in cmake/tasks.sh. BUILD_DIR, JOBS, CMAKE_PREFIX_PATH, Torch_DIR and MMTRAIN_HOME are
# respected, from the environment or the command line: make test BUILD_DIR=/tmp/b JOBS=4
TASKS := quickstart test build bench gpu-bundle gpu-check asan tsan tsan-engine fuzz format check-format clean

.PHONY: help $(TASKS)
.NOTPARALLEL:
help:
	@bash cmake/tasks.sh help
$(TASKS):
	@bash cmake/tasks.sh $@
