#pragma once

/// What `mmtrain_bench WHAT` measures, one file each. They take the arguments from WHAT on and return the exit code.
namespace mmtrain::bench {

/// Image files or their cache to batches.
int images(int argc, char** argv);
/// Cached clips of talking people to batches.
int clips(int argc, char** argv);
/// Sound in memory to mel spectrograms.
int mel(int argc, char** argv);
/// Clips to frames and mel spectrograms.
int video(int argc, char** argv);
/// A recording as delimited text to windows.
int text(int argc, char** argv);
/// Recordings of sensors to spectra.
int sensors(int argc, char** argv);
/// A decode-once cache of frames and spectrograms to batches.
int cache(int argc, char** argv);
/// A whole training step on data in memory.
int step(int argc, char** argv);
/// Training steps of several replicas at once.
int scaling(int argc, char** argv);

}  // namespace mmtrain::bench
