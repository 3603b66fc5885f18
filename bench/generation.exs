# Compares decoding, prompts and memory of a language model of 30M parameters with mlx-lm, on
# the CPU, in turns:
#
#     pip install mlx==0.32.2 mlx-cpu==0.32.2 mlx-lm
#     OPENBLAS_NUM_THREADS=1 mix run bench/generation.exs [--python PYTHON] [--rounds N]

Code.require_file("measure.exs", __DIR__)
Code.require_file("../examples/decoder.exs", __DIR__)
Code.require_file("../examples/language_model/random_weights.exs", __DIR__)

defmodule Mlx.Bench.Generation do
  alias Mlx.Bench.Measure

  @config %{
    "model_type" => "qwen3",
    "hidden_size" => 512,
    "num_hidden_layers" => 8,
    "intermediate_size" => 1536,
    "num_attention_heads" => 8,
    "num_key_value_heads" => 4,
    "head_dim" => 64,
    "vocab_size" => 8192,
    "rms_norm_eps" => 1.0e-6,
    "rope_theta" => 1_000_000,
    "max_position_embeddings" => 4096,
    "tie_word_embeddings" => true
  }

  @figures ["decode", "prompt", "peak"]

  def run(python, rounds) do
    folder = Path.join(System.tmp_dir!(), "mlx_generation_#{System.unique_integer([:positive])}")

    try do
      alone(fn -> save(folder) end)
      for form <- ["dense", "4bit"], do: compare(form, Path.join(folder, form), python, rounds)
    after
      File.rm_rf!(folder)
    end
  end

  defp save(folder) do
    Nx.default_backend({Mlx.Backend, device: :cpu})
    params = RandomWeights.make(@config, 1)
    Mlx.Weights.save(Path.join(folder, "dense"), params, config: @config)

    Mlx.Weights.save(Path.join(folder, "4bit"), Decoder.quantize(params, bits: 4),
      config: @config
    )
  end

  defp compare(form, folder, python, rounds) do
    pairs =
      for _ <- 1..rounds do
        ours = alone(fn -> measure(folder) end)

        {ours,
         python && Measure.mlx_lm(python, Path.join(__DIR__, "generation_mlx_lm.py"), folder)}
      end

    for figure <- @figures do
      {mine, theirs} = Enum.unzip(pairs)
      line = "#{form} #{figure}: Mlx #{median(mine, figure)}"
      IO.puts(if(python, do: line <> compared(figure, pairs, theirs), else: line))
    end
  end

  defp compared(figure, pairs, theirs) do
    ratios = for {mine, theirs} <- pairs, do: mine[figure] / theirs[figure]
    ratio = Float.round(Measure.median(ratios), 2)

    "; mlx-lm #{median(theirs, figure)}; ratio #{ratio} (#{Enum.map_join(ratios, ", ", &Float.round(&1, 2))})"
  end

  defp median(figures, figure),
    do: figures |> Enum.map(& &1[figure]) |> Measure.median() |> round()

  # In a process of its own, whose garbage goes with it.
  defp alone(fun), do: fun |> Task.async() |> Task.await(:infinity)

  defp measure(folder) do
    Nx.default_backend({Mlx.Backend, device: :cpu})
    {config, params} = Decoder.read(folder, device: :cpu)
    defn_options = [compiler: Mlx.Compiler, device: :cpu]
    generator = Decoder.generator(config, params, defn_options: defn_options)
    short = Enum.to_list(1..16)
    long = for at <- 1..512, do: rem(at * 37, 8192)
    times(generator, short, 8)
    times = times(generator, short, 128)
    peak = Mlx.Memory.stats().peak
    prompts = for _ <- 1..3, do: generator |> times(long, 2) |> Enum.take(2) |> gaps() |> hd()
    [_start, first | _] = times
    decode = (length(times) - 2) / (List.last(times) - first)

    %{
      "decode" => decode,
      "prompt" => 512 / Measure.median(prompts),
      "peak" => peak
    }
  end

  # The peak is that of what follows the first token.
  defp times(generator, prompt, count) do
    stream = Mlx.Generation.stream(generator, prompt, max_tokens: count)

    for {_, at} <- [:start] |> Stream.concat(stream) |> Stream.with_index() do
      if at == 1, do: Mlx.Memory.reset_peak()
      System.monotonic_time(:microsecond) / 1.0e6
    end
  end

  defp gaps(times), do: Enum.zip_with(tl(times), times, &(&1 - &2))
end

{opts, []} = OptionParser.parse!(System.argv(), strict: [python: :string, rounds: :integer])
Mlx.Bench.Generation.run(opts[:python], opts[:rounds] || 3)
