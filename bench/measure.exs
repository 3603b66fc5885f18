defmodule Mlx.Bench.Measure do
  @moduledoc false

  # Times of Mlx, and of Python MLX on the same cases.

  @warm_up 50
  @budget_us 1_000_000
  @most 20_000

  @doc """
  The median of as many runs as fit the time, in microseconds.
  """
  def median_us(run) do
    for _ <- 1..@warm_up, elapsed(run) < @budget_us / @warm_up, do: :ok
    run |> times([], System.monotonic_time(:microsecond) + @budget_us) |> median()
  end

  defp times(run, acc, deadline) do
    acc = [elapsed(run) | acc]
    late = System.monotonic_time(:microsecond) > deadline
    if late or length(acc) >= @most, do: acc, else: times(run, acc, deadline)
  end

  defp elapsed(run) do
    started = System.monotonic_time(:nanosecond)
    run.()
    (System.monotonic_time(:nanosecond) - started) / 1000
  end

  @doc """
  What a call costs the scheduler, in microseconds: the lowest of several medians, so that
  a while in which the machine has other work does not count.
  """
  def call_us(run, device) do
    # Nothing is kept, as copying it when garbage is collected costs more than queueing it.
    thousand = fn -> Enum.each(1..1000, fn _ -> run.() end) end

    medians =
      for _ <- 1..10 do
        median(
          for _ <- 1..30 do
            Mlx.synchronize(device)
            {time, _} = :timer.tc(thousand)
            time / 1000
          end
        )
      end

    Enum.min(medians)
  end

  def median(list), do: list |> Enum.sort() |> Enum.at(div(length(list), 2))

  @doc """
  The version of MLX that a Python has, or why it has none.
  """
  def python_version(python) do
    code = "import numpy, mlx.core; print(mlx.core.__version__)"

    case System.cmd(python, ["-c", code], stderr_to_stdout: true) do
      {version, 0} -> {:ok, String.trim(version)}
      {output, _} -> {:error, output |> String.trim() |> String.split("\n") |> List.last()}
    end
  rescue
    error in ErlangError -> {:error, "#{python}: #{inspect(error.original)}"}
  end

  @doc """
  The median of Python MLX, in microseconds. On Linux it is given the BLAS that Mlx uses, so
  that both sides multiply matrices alike.
  """
  def python_us(python, name, device) do
    script = Path.expand("python_mlx.py", __DIR__)
    args = [script, "--device", "#{device}", "--only", name]
    {output, 0} = System.cmd(python, args, env: blas())
    [_, us] = Regex.run(~r/"#{name}": ([0-9.e+-]+)/, output)
    us |> Float.parse() |> elem(0)
  end

  @doc """
  The figures that a script prints of mlx-lm on the model of a folder.
  """
  def mlx_lm(python, script, folder), do: last_json(python, [script, folder])

  @doc """
  What a script prints last.
  """
  def last_json(python, args) do
    {output, 0} = System.cmd(python, args, env: blas())
    output |> String.split("\n", trim: true) |> List.last() |> JSON.decode!()
  end

  @doc """
  The environment in which Python MLX has the BLAS that Mlx uses.
  """
  def blas do
    libraries = Path.join(:code.priv_dir(:mlx), "runtime/mlx_*.libs/libblas*")

    case Path.wildcard(libraries) do
      [blas | _] -> [{"LD_PRELOAD", blas}]
      [] -> []
    end
  end
end
