defmodule Mix.Tasks.Mlx.Bench do
  @shortdoc "Times Mlx, and compares it with Python MLX"

  @moduledoc """
  Times Mlx, and compares it with Python MLX where that is installed.

      OPENBLAS_NUM_THREADS=1 mix mlx.bench

  Python MLX runs the same MLX underneath, so the ratio to it is the cost of the binding:
  below 1 Mlx is cheaper. Times are microseconds, and medians of several rounds, in which
  the two sides take turns, so that a change of the machine's speed hits both:

      device cpu, medians of 3 rounds, microseconds; Python MLX 0.32.2

      case                                 Mlx      Python       ratio
      add_256_and_read                    21.2        99.8        0.21

  Python needs the packages `mlx` and `numpy`, and `mlx-cpu` or `mlx-cuda-13`, of the MLX
  version that Mlx uses. All cases take some minutes; with Python, a quarter of an hour.

  ## Options

    * `--only NAME` - only cases whose name starts so; may be given several times
    * `--rounds N` - `3` by default
    * `--device DEVICE` - `cpu` or `gpu`, `Mlx.Device.default/0` by default
    * `--python PATH` - the Python to compare with, `python3` by default; raises if it has
      no MLX
    * `--no-python` - times Mlx alone
    * `--json` - prints the table as JSON, and nothing else
    * `--list` - prints the names of the cases

  Names that start with `enqueue` are what an operation costs the scheduler that queues it,
  and those with `telemetry` what an event costs to which nobody listens. Python has no
  match for these.

  ## JSON

  An object with `mlx` (the version of Mlx), `device`, `rounds`, `python` (the version of
  Python's MLX, or `null`) and `cases`, a list of objects with `name`, `us`, `python_us` and
  `ratio`; the last two are `null` where there is nothing to compare with.
  """

  use Mix.Task

  # They are in the package, but not part of the library.
  @sources ~w(measure transformer eager compiled fast)

  @switches [
    only: :keep,
    rounds: :integer,
    device: :string,
    python: :string,
    no_python: :boolean,
    json: :boolean,
    list: :boolean
  ]

  @impl true
  def run(args) do
    {opts, rest} = OptionParser.parse!(args, strict: @switches)
    if rest != [], do: Mix.raise("mix mlx.bench takes options only, got: #{Enum.join(rest, " ")}")
    Mix.Task.run("app.config")
    {:ok, _} = Application.ensure_all_started(:mlx)
    for source <- @sources, do: Code.require_file("#{source}.exs", folder())

    device = device(opts[:device])
    rounds = opts[:rounds] || 3
    if rounds < 1, do: Mix.raise("--rounds is at least 1")

    Nx.with_default_backend({Mlx.Backend, device: device}, fn ->
      cases = chosen(cases(device), Keyword.get_values(opts, :only))

      if opts[:list],
        do: for({name, _, _} <- cases, do: Mix.shell().info(name)),
        else: compare(cases, %{device: device, rounds: rounds, python: python(opts)}, opts)
    end)

    :ok
  end

  defp folder do
    root =
      if Mix.Project.config()[:app] == :mlx, do: File.cwd!(), else: Mix.Project.deps_paths()[:mlx]

    folder = root && Path.join(root, "bench")

    if folder && File.dir?(folder),
      do: folder,
      else: Mix.raise("the benchmark's cases are in the sources of Mlx, which are not here")
  end

  defp device(nil), do: Mlx.Device.default()

  defp device(name) do
    Enum.find(Mlx.Device.available(), &(to_string(&1) == name)) ||
      Mix.raise("there is no device #{name}")
  end

  # The modules are there only once their files are loaded.
  defp cases(device) do
    calls = for {name, run} <- bench(:Eager, :calls), do: {name, &call_us(&1, run, device), false}
    timed = bench(:Eager, :cases) ++ bench(:Compiled, :cases) ++ bench(:Fast, :cases)
    for({name, run} <- timed, do: {name, &median_us(&1, run), true}) ++ calls
  end

  defp bench(module, function, args \\ []),
    do: apply(Module.concat(Mlx.Bench, module), function, args)

  defp median_us(_round, run), do: bench(:Measure, :median_us, [run])

  # It takes the lowest of several medians by itself.
  defp call_us(1, run, device), do: bench(:Measure, :call_us, [run, device])
  defp call_us(_round, _run, _device), do: nil

  defp chosen(cases, []), do: cases

  defp chosen(cases, prefixes) do
    for prefix <- prefixes,
        not Enum.any?(cases, fn {name, _, _} -> String.starts_with?(name, prefix) end) do
      Mix.raise("no case starts with #{prefix}; --list has them all")
    end

    Enum.filter(cases, fn {name, _, _} -> String.starts_with?(name, prefixes) end)
  end

  ## Python

  defp python(opts) do
    python = opts[:python] || "python3"

    if !opts[:no_python] do
      case bench(:Measure, :python_version, [python]) do
        {:ok, version} -> {python, version}
        {:error, reason} -> without_python(opts, reason)
      end
    end
  end

  defp without_python(opts, reason) do
    if opts[:python], do: Mix.raise("#{opts[:python]} can't run Python MLX: #{reason}")
    Mix.shell().error("No ratios, because python3 can't run Python MLX: #{reason}")
    nil
  end

  ## Measuring

  defp compare(cases, settings, opts) do
    print = if opts[:json], do: & &1, else: &Mix.shell().info/1
    print.(head(settings))

    rows =
      for case <- cases do
        row = measure(case, settings)
        print.(line(row))
        row
      end

    if opts[:json], do: Mix.shell().info(json(rows, settings))
  end

  defp measure({name, time, compared?}, %{rounds: rounds} = settings) do
    pairs =
      for round <- 1..rounds,
          us = time.(round),
          do: {us, if(compared?, do: python_us(name, settings))}

    ratios = for {us, python_us} <- pairs, python_us, do: us / python_us
    {us, python_us} = Enum.unzip(pairs)
    %{name: name, us: median(us), python_us: median(python_us), ratio: median(ratios)}
  end

  defp python_us(_name, %{python: nil}), do: nil

  defp python_us(name, %{python: {python, _version}, device: device}),
    do: bench(:Measure, :python_us, [python, name, device])

  defp median(values) do
    values = Enum.filter(values, & &1)
    if values != [], do: bench(:Measure, :median, [values])
  end

  ## Printing

  defp head(%{device: device, rounds: rounds, python: python}) do
    compared = if python, do: "; Python MLX #{elem(python, 1)}"

    "device #{device}, medians of #{rounds} rounds, microseconds#{compared}\n\n" <>
      columns("case", "Mlx", "Python", "ratio")
  end

  defp line(%{name: name, us: us, python_us: python_us, ratio: ratio}),
    do:
      columns(
        name,
        number(us, if(us < 10, do: 2, else: 1)),
        number(python_us, 1),
        number(ratio, 2)
      )

  defp columns(name, us, python_us, ratio) do
    figures = for value <- [us, python_us, ratio], do: String.pad_leading(value, 12)
    String.trim_trailing(String.pad_trailing(name, 28) <> Enum.join(figures))
  end

  defp number(nil, _decimals), do: ""
  defp number(number, decimals), do: :erlang.float_to_binary(number / 1, decimals: decimals)

  defp json(rows, %{device: device, rounds: rounds, python: python}) do
    %{
      mlx: to_string(Application.spec(:mlx, :vsn)),
      device: device,
      rounds: rounds,
      python: python && elem(python, 1),
      cases: rows
    }
    |> JSON.encode!()
  end
end
