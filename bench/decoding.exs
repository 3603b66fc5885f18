# What a token takes a language model with random weights, made on the device, and what it takes
# Python MLX with the same weights and mlx-lm's model:
#
#     mix run bench/decoding.exs --model qwen3-0.6b --device gpu --type bf16 [--bits 4] [--fuse]
#       [--prompt 512] [--tokens 64,256] [--rounds 3] [--python PYTHON] [--packages FOLDER]
#
# FOLDER has `mlx_lm`, of which only the models are used, if PYTHON has none.

Code.require_file("measure.exs", __DIR__)
Code.require_file("../examples/decoder.exs", __DIR__)
Code.require_file("../examples/language_model/random_weights.exs", __DIR__)

defmodule Mlx.Bench.Decoding do
  alias Mlx.Bench.Measure

  @models JSON.decode!(File.read!(Path.join(__DIR__, "models.json")))

  def run(opts) do
    model = opts[:model] || "tiny"
    config = @models[model] || raise "no model #{model}, only #{inspect(Map.keys(@models))}"
    device = String.to_atom(opts[:device] || "cpu")
    type = opts |> Keyword.get(:type, "f32") |> String.to_atom() |> Nx.Type.normalize!()
    {:ok, _} = Application.ensure_all_started(:mlx)
    Nx.default_backend({Mlx.Backend, device: device})
    lengths = opts |> Keyword.get(:tokens, "64,256") |> String.split(",")
    lengths = Enum.map(lengths, &String.to_integer/1)
    generator = generator(config, device, type, opts)
    size = opts[:prompt] || 512
    prompt = for at <- 1..size, do: rem(at * 37, config["vocab_size"])

    rounds =
      for _ <- 1..(opts[:rounds] || 3) do
        mine = for count <- lengths, do: measure(generator, prompt, count)
        theirs = if opts[:python], do: python(model, device, type, size, lengths, opts)
        {mine, theirs}
      end

    IO.puts("#{model}, #{device}, #{Nx.Type.to_string(type)}, bits #{inspect(opts[:bits])}")
    for {count, at} <- Enum.with_index(lengths), do: report(rounds, size, count, at)
  end

  defp generator(config, device, type, opts) do
    params =
      for {name, weight} <- RandomWeights.make(config, 1), into: %{} do
        {name, weight |> Nx.as_type(type) |> Mlx.eval()}
      end

    params = if bits = opts[:bits], do: Decoder.quantize(params, bits: bits), else: params
    params = Decoder.fuse(params)
    defn = [compiler: Mlx.Compiler, device: device, fuse: opts[:fuse] || false]
    Decoder.generator(Decoder.config(config), params, defn_options: defn)
  end

  # The first time programs are compiled.
  defp measure(generator, prompt, count) do
    timed(generator, prompt, count)
    timed(generator, prompt, count)
  end

  defp timed(generator, prompt, count) do
    start = System.monotonic_time(:microsecond)

    {ids, times} =
      generator
      |> Mlx.Generation.stream(prompt, max_tokens: count)
      |> Enum.map(&{&1.id, System.monotonic_time(:microsecond)})
      |> Enum.unzip()

    [first | _] = times
    gaps = Enum.zip_with(tl(times), times, &(&1 - &2))

    %{
      "ids" => ids,
      "prompt" => (first - start) / 1000,
      "mean" => (List.last(times) - first) / (count - 1) / 1000,
      "median" => Measure.median(gaps) / 1000
    }
  end

  defp python(model, device, type, size, lengths, opts) do
    args = [
      Path.join(__DIR__, "decoding_mlx_lm.py"),
      "--model=#{model}",
      "--device=#{device}",
      "--type=#{Nx.Type.to_string(type)}",
      "--bits=#{opts[:bits] || 0}",
      "--prompt=#{size}",
      "--tokens=#{Enum.join(lengths, ",")}",
      "--packages=#{opts[:packages]}"
    ]

    Measure.last_json(opts[:python], args)
  end

  defp report(rounds, size, count, at) do
    {mine, theirs} = Enum.unzip(rounds)
    IO.puts("#{count} tokens after #{size}, in ms, each the median of #{length(rounds)} rounds:")

    for figure <- ["mean", "median", "prompt"] do
      ours = for round <- mine, do: Enum.at(round, at)[figure]
      others = for round <- theirs, round != nil, do: Enum.at(round, at)[figure]
      IO.puts("  #{figure}: Mlx #{shown(ours)}" <> compared(ours, others))
    end

    if hd(theirs) do
      pairs = Enum.zip(Enum.at(hd(mine), at)["ids"], Enum.at(hd(theirs), at)["ids"])
      same = Enum.take_while(pairs, fn {a, b} -> a == b end) |> length()
      IO.puts("  the first #{same} of #{count} tokens are the same")
    end
  end

  defp compared(_ours, []), do: ""

  # How many times as fast as Python MLX, so more is better.
  defp compared(ours, others) do
    ratios = Enum.zip_with(others, ours, &(&1 / &2))
    "; mlx-lm #{shown(others)}; #{round2(Measure.median(ratios))} times as fast"
  end

  defp shown(values) do
    "#{round2(Measure.median(values))} (#{Enum.map_join(values, ", ", &round2/1)})"
  end

  defp round2(value), do: :erlang.float_to_binary(value * 1.0, decimals: 2)
end

{opts, []} =
  OptionParser.parse!(System.argv(),
    strict: [
      model: :string,
      device: :string,
      type: :string,
      bits: :integer,
      fuse: :boolean,
      prompt: :integer,
      tokens: :string,
      rounds: :integer,
      python: :string,
      packages: :string
    ]
  )

Mlx.Bench.Decoding.run(opts)
