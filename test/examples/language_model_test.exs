Code.require_file("examples/decoder.exs")
Code.require_file("examples/language_model/random_weights.exs")

defmodule Mlx.Examples.LanguageModelTest do
  # The tokens are those of mlx-lm, see examples/language_model/reference.py.
  use ExUnit.Case, async: true

  @cases "test/fixtures/language_models.json"
  @external_resource @cases

  setup do
    Nx.default_backend({Mlx.Backend, device: :cpu})
    :ok
  end

  for %{"name" => name} = language_model <- JSON.decode!(File.read!(@cases)) do
    @tag timeout: 300_000
    @language_model language_model
    test "#{name} gives the tokens that mlx-lm gives" do
      %{"config" => json, "seed" => seed, "tokens" => expected} = @language_model
      params = json |> RandomWeights.make(seed) |> quantized(@language_model["bits"])
      generator = Decoder.generator(Decoder.config(json), params)
      opts = [max_tokens: @language_model["length"]]
      assert length(expected) == 64

      assert Mlx.Generation.generate(generator, @language_model["prompt"], opts).tokens ==
               expected
    end
  end

  # Matrices, as mlx-lm does it.
  defp quantized(params, nil), do: params

  defp quantized(params, bits) do
    Map.new(params, fn
      {name, %{shape: {_, _}} = weight} ->
        {name, Mlx.Quantization.quantize(weight, bits: bits, group_size: 64)}

      other ->
        other
    end)
  end
end
