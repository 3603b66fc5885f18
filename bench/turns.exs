# Ratios to Python MLX where both sides take turns of 20 milliseconds, so that other work of
# the machine hits both alike. Runs the cases of `eager.exs` that it is given:
#
#     OPENBLAS_NUM_THREADS=1 mix run bench/turns.exs sort_1m_f32 fft_1m_f32

for file <- ~w(measure transformer eager), do: Code.require_file("#{file}.exs", __DIR__)

defmodule Mlx.Bench.Turns do
  alias Mlx.Bench.{Eager, Measure}

  @turn_us 20_000
  @turns_us 2_000_000

  def run(names) do
    Nx.default_backend({Mlx.Backend, device: :cpu})
    cases = Eager.cases()
    python = python()
    IO.puts(String.pad_trailing("case", 28) <> "         Mlx      Python       ratio")

    for name <- names do
      {^name, run} = List.keyfind(cases, name, 0) || raise "there is no case #{name}"
      line(name, compare(name, run, python))
    end
  end

  defp python do
    env = for {name, value} <- Measure.blas(), do: {to_charlist(name), to_charlist(value)}
    args = [Path.expand("python_mlx.py", __DIR__), "--serve"]
    python = System.find_executable("python3") || raise "there is no python3"
    Port.open({:spawn_executable, python}, [:binary, line: 100, args: args, env: env])
  end

  # Medians of both, and of their ratios.
  defp compare(name, run, python) do
    sides = [&ours(run, &1), &theirs(python, name, &1)]
    for side <- sides, do: side.(2)
    times = max(1, trunc(@turn_us / hd(sides).(1)))
    turns = max(7, div(@turns_us, 2 * @turn_us))
    pairs = for _ <- 1..turns, do: Enum.map(sides, & &1.(times))
    ratios = for [mlx, python] <- pairs, do: mlx / python
    Enum.map(Enum.zip_with(pairs, & &1) ++ [ratios], &Measure.median/1)
  end

  defp ours(run, times) do
    {us, _} = :timer.tc(fn -> for(_ <- 1..times, do: run.()) end)
    us / times
  end

  defp theirs(python, name, times) do
    Port.command(python, "#{name} #{times}\n")

    receive do
      {^python, {:data, {:eol, ns}}} -> String.to_integer(ns) / times / 1000
    after
      600_000 -> raise "Python does not answer"
    end
  end

  defp line(name, [mlx, python, ratio]) do
    columns =
      for {number, digits} <- [{mlx, 1}, {python, 1}, {ratio, 2}], do: column(number, digits)

    IO.puts(String.pad_trailing(name, 28) <> Enum.join(columns))
  end

  defp column(number, digits),
    do: String.pad_leading(:erlang.float_to_binary(number, decimals: digits), 12)
end

Mlx.Bench.Turns.run(System.argv())
