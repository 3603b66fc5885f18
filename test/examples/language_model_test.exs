Code.require_file("examples/decoder.exs")
Code.require_file("examples/language_model/random_weights.exs")

defmodule Mlx.Examples.LanguageModelTest do
  # The tokens are those of mlx-lm, see examples/language_model/reference.py.
  use ExUnit.Case, async: false

  @cases "test/fixtures/language_models.json"
  @external_resource @cases

  setup do
    Nx.default_backend(Mlx.Backend)
    :ok
  end

  for %{"name" => name} = language_model <- JSON.decode!(File.read!(@cases)) do
    @tag timeout: 300_000
    @language_model language_model
    test "#{name} gives the tokens that mlx-lm gives" do
      %{"config" => json, "seed" => seed, "tokens" => expected} = @language_model
      params = json |> RandomWeights.make(seed) |> quantized(@language_model["bits"])
      assert length(expected) == 64

      # Joining matrices lets go of them.
      for params <- [fn -> params end, fn -> Decoder.fuse(params) end] do
        generator = Decoder.generator(Decoder.config(json), params.())
        opts = [max_tokens: @language_model["length"]]

        assert Mlx.Generation.generate(generator, @language_model["prompt"], opts).tokens ==
                 expected
      end
    end
  end

  defp quantized(params, nil), do: params
  defp quantized(params, bits), do: Decoder.quantize(params, bits: bits, group_size: 64)

  test "fused parts give the same" do
    %{"config" => json, "prompt" => prompt} =
      Enum.find(@cases |> File.read!() |> JSON.decode!(), &(&1["name"] == "qwen3"))

    # The C++ compiler takes its time for each layer.
    json = Map.put(json, "num_hidden_layers", 1)
    params = json |> RandomWeights.make(1) |> Decoder.fuse()

    [fused, plain] =
      for fuse <- [true, false] do
        opts = [defn_options: [compiler: Mlx.Compiler, fuse: fuse]]
        generator = Decoder.generator(Decoder.config(json), params, opts)
        Mlx.Generation.generate(generator, [hd(prompt)], max_tokens: 16)
      end

    assert fused == plain
  end

  test "weights that are saved give the same" do
    %{"config" => json, "seed" => seed, "prompt" => prompt, "tokens" => expected} =
      Enum.find(@cases |> File.read!() |> JSON.decode!(), &(&1["name"] == "llama-4bit"))

    folder = Path.join(System.tmp_dir!(), "language_model_#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf!(folder) end)
    params = json |> RandomWeights.make(seed) |> Decoder.quantize(bits: 4)
    Mlx.Weights.save(folder, params, config: json)
    {config, loaded} = Decoder.read(folder)
    assert %Mlx.Quantization.Tensor{} = loaded["lm_head.weight"]
    generator = Decoder.generator(config, loaded)
    assert Mlx.Generation.generate(generator, prompt, max_tokens: 64).tokens == expected
  end

  test "the example runs" do
    output = ExUnit.CaptureIO.capture_io(fn -> run(["--prompt", "3,1", "--max-tokens", "9"]) end)

    assert [tokens, "device: " <> _, "prompt: 2 tokens" <> _, "tokens: 9" <> _ | _] =
             String.split(output, "\n")

    assert tokens |> String.split() |> length() == 9

    quantized =
      ExUnit.CaptureIO.capture_io(fn -> run(["--bits", "8", "--temperature", "1.0"]) end)

    assert quantized =~ "tokens: 64"
  end

  defp run(args) do
    before = System.argv()
    :code.purge(Rates)
    :code.delete(Rates)

    try do
      System.argv(args)
      Code.eval_file("examples/language_model.exs")
    after
      System.argv(before)
    end
  end
end
