Code.require_file("examples/decoder.exs")
Code.require_file("examples/language_model/random_weights.exs")

defmodule Mlx.Examples.QuantizationTest do
  use ExUnit.Case, async: false
  alias Mlx.Example

  setup do
    Example.on_cpu()
  end

  test "fewer bits take less memory, and the digits are read nearly as well" do
    rows =
      for line <- [] |> run() |> String.split("\n", trim: true) |> tl() do
        [name, bytes, right, change] =
          Regex.run(~r/^(.+?) +(\d+) +([\d.]+) % +([\d.]+)$/, line, capture: :all_but_first)

        {name, String.to_integer(bytes), String.to_float(right), String.to_float(change)}
      end

    rows = Map.new(rows, fn {name, bytes, right, change} -> {name, {bytes, right, change}} end)
    assert map_size(rows) == 9
    assert {19_240, exact, +0.0} = rows["f32"]
    assert {5624, right, change} = rows["affine, 8 bits by 64"]
    assert abs(right - exact) < 1 and change < 0.5
    assert {3256, four, _} = rows["affine, 4 bits by 64"]
    assert {_, two, _} = rows["affine, 2 bits by 64"]
    assert four > 95 and two > 50
    assert Enum.all?(rows, fn {_, {bytes, _, _}} -> bytes <= 19_240 end)
  end

  @config %{
    "model_type" => "llama",
    "hidden_size" => 128,
    "num_hidden_layers" => 1,
    "intermediate_size" => 256,
    "num_attention_heads" => 4,
    "num_key_value_heads" => 2,
    "head_dim" => 32,
    "vocab_size" => 100,
    "rms_norm_eps" => 1.0e-6,
    "rope_theta" => 10_000,
    "max_position_embeddings" => 64,
    "tie_word_embeddings" => true
  }

  @tag :tmp_dir
  test "a folder is packed to one that the decoder reads", %{tmp_dir: folder} do
    [from, to] = for name <- ["dense", "packed"], do: Path.join(folder, name)
    Mlx.Weights.save(from, RandomWeights.make(@config, 1), config: @config)
    assert [from, to, "--bits", "8", "--group-size", "32"] |> run() =~ ~r/^\d+ KiB became \d+ KiB/

    assert %{"bits" => 8, "group_size" => 32, "mode" => "affine"} =
             Mlx.Weights.load_config(to)["quantization"]

    [dense, packed] =
      for path <- [from, to] do
        {config, params} = Decoder.read(path)
        generator = Decoder.generator(config, params)
        Mlx.Generation.generate(generator, [1, 2, 3], max_tokens: 4).tokens
      end

    assert length(packed) == 4 and hd(packed) == hd(dense)
    assert_raise ArgumentError, ~r/:mode is one of/, fn -> run([from, to, "--mode", "other"]) end
  end

  defp run(args) do
    Example.run("quantization", args)
  after
    Example.forget([Pack, Formats])
  end
end
