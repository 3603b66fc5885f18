defmodule Mix.Tasks.Mlx.Doctor do
  @shortdoc "Looks whether all that Mlx needs is there and works"

  @moduledoc """
  Looks whether all that Mlx needs is there and works.

      mix mlx.doctor

  Each line is `ok`, `warning` or `error`, with what to do about it:

      ok       platform        Linux x86-64
      ok       Elixir          1.18.3 on OTP 27
      ok       MLX             0.32.2, variant cpu, in …/runtime/0.32.2-cpu-linux-x86_64
      ok       NIF             loads, with 160 operations
      ok       application     starts
      ok       devices         cpu; cpu by default
      ok       cpu computes    single operations and a compiled function
      ok       BLAS            OpenBLAS 0.3.29, 2 threads
      warning  compiler        there is no g++ in the PATH
                               -> install g++; without it `fuse: true` runs programs unfused on the CPU
      0 errors, 1 warnings

  The exit status is 1 if there is an error, 0 otherwise, also if there are warnings. With
  an MLX for CUDA it names each of NVIDIA's libraries that is missing, and the package that
  has it.

  Mlx must have been compiled once; it need not be able to load its NIF. `Mlx.Doctor` does
  the same in a release.
  """

  use Mix.Task

  @impl true
  def run(args) do
    if args != [],
      do: Mix.raise("mix mlx.doctor takes no arguments, got: #{Enum.join(args, " ")}")

    # What needs no compiling, because that may be what fails.
    if Mix.Project.get(), do: Mix.Task.run("loadpaths", ["--no-compile", "--no-deps-check"])
    if Mlx.Doctor.run(&Mix.shell().info/1) == :error, do: exit({:shutdown, 1})
  end
end
