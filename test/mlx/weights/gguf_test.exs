defmodule Mlx.Weights.GGUFTest do
  use ExUnit.Case, async: true
  import Mlx.WeightFiles
  alias Mlx.Weights
  alias Mlx.Quantization.Tensor, as: Quantized

  @moduletag :tmp_dir

  test "metadata of every kind is what Python wrote" do
    weights = Weights.open(fixture("model.gguf"))
    assert weights.format == :gguf

    assert weights.metadata == %{
             "general.architecture" => "llama",
             "general.name" => "small %s",
             "llama.block_count" => 3,
             "int8" => -5,
             "uint64" => 2 ** 63,
             "float32" => :infinity,
             "float64" => 0.1,
             "bool" => true,
             "tokenizer.ggml.tokens" => ["<s>", "ä", ""],
             "tokenizer.ggml.token_type" => [1, 2, 3]
           }
  end

  test "plain types are those of the same names in Safetensors" do
    weights = Weights.open(fixture("model.gguf"))
    expected = Weights.open(fixture("types.safetensors"))

    for name <- ~w(float32 float16 bfloat16 float64 int8 int16 int32 int64),
        name in held(weights) do
      tensor = Weights.tensor(weights, name)
      other = Weights.tensor(expected, name)
      assert {tensor.type, tensor.shape} == {other.type, other.shape}
      assert Nx.to_binary(tensor) == Nx.to_binary(other)
    end
  end

  test "blocks are the values that gguf's own code finds in them" do
    weights = Weights.open(fixture("model.gguf"))
    values = Weights.load(fixture("gguf_values.npz"))

    for {name, bits} <- [{"Q4_0.weight", 4}, {"Q4_1.weight", 4}, {"Q8_0.weight", 8}] do
      quantization = %{bits: bits, group_size: 32, mode: :affine}

      assert %{shape: {4, 96}, type: {:f, 16}, quantization: ^quantization} =
               Weights.info(weights, name)

      # In f32 the biases are exact, so the values are, too.
      quantized = Weights.tensor(weights, name, type: :f32)
      assert %Quantized{bits: ^bits, group_size: 32, mode: :affine} = quantized
      assert quantized.packed.type == {:u, 32}
      assert quantized.packed.shape == {4, (96 * bits) |> div(32)}
      assert quantized.scales.shape == {4, 3} and quantized.biases.shape == {4, 3}
      assert quantized.scales.type == {:f, 32} and quantized.biases.type == {:f, 32}
      difference = Nx.subtract(dequantize(quantized), Nx.flatten(values[name]))
      assert difference |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number() <= 1.0e-6
    end
  end

  test "blocks are, bit for bit, what MLX's own reader makes of them" do
    weights = Weights.load(fixture("mlx.gguf"))
    parts = Weights.load(fixture("mlx_gguf_parts.safetensors"))

    for layer <- ~w(Q4_0 Q4_1 Q8_0) do
      quantized = weights[layer <> ".weight"]

      for {field, name} <- [packed: "weight", scales: "scales", biases: "biases"] do
        {got, expected} = {Map.fetch!(quantized, field), parts["#{layer}.#{name}"]}
        assert {got.type, got.shape} == {expected.type, expected.shape}
        assert Nx.to_binary(got) == Nx.to_binary(expected)
      end
    end
  end

  test "blocks of other kinds are known and refused" do
    weights = Weights.open(fixture("model.gguf"))

    assert %{type: nil, stored: "Q5_0", shape: {4, 96}, byte_size: 264, quantization: nil} =
             Weights.info(weights, "Q5_0.weight")

    error = assert_raise Mlx.Error, fn -> Weights.tensor(weights, "Q5_0.weight") end
    assert error.kind == :type
    assert error.message =~ "Q5_0"
  end

  # A file of pairs and tensors, of which each is a name, dimensions, type and offset.
  defp gguf(pairs, tensors, data, version \\ 3) do
    header = <<"GGUF", version::little-32, length(tensors)::little-64, length(pairs)::little-64>>
    pairs = for {name, type, value} <- pairs, do: [text(name), <<type::little-32>>, value]

    tensors =
      for {name, dims, type, offset} <- tensors do
        dims = for dim <- dims, into: <<length(dims)::little-32>>, do: <<dim::little-64>>
        [text(name), dims, <<type::little-32, offset::little-64>>]
      end

    head = IO.iodata_to_binary([header, pairs, tensors])
    filler = rem(32 - rem(byte_size(head), 32), 32)
    head <> :binary.copy(<<0>>, filler) <> :binary.copy(<<1>>, data)
  end

  defp text(name), do: <<byte_size(name)::little-64, name::binary>>

  test "malformed files are refused", %{tmp_dir: folder} do
    float = fn name, offset -> {name, [8], 0, offset} end
    deep = <<9::little-32, 1::little-64>>

    cases = [
      {"GGUF", "cut short"},
      {"GGUF" <> <<3::32>>, "version 50331648"},
      {gguf([], [], 0, 1), "version 1"},
      {<<"GGUF", 3::little-32, 2 ** 63::little-64, 0::64>>, "cut short"},
      {<<"GGUF", 3::little-32, 0::64, 2 ** 63::little-64>>, "cut short"},
      {gguf([{"a", 8, <<2 ** 63::little-64>>}], [], 0), "cut short"},
      {gguf([{"a", 9, <<4::little-32, 2 ** 63::little-64>>}], [], 0), "cut short"},
      {gguf([{"a", 9, [deep, deep, deep, deep, deep]}], [], 0), "nested"},
      {gguf([{"a", 13, ""}], [], 0), "type 13"},
      {gguf([{"a", 7, <<2>>}], [], 0), "boolean"},
      {gguf([{"a", 0, <<2>>}, {"a", 0, <<2>>}], [], 0), "\"a\" twice"},
      {gguf([{"general.alignment", 4, <<0::32>>}], [], 0), "alignment"},
      {gguf([{"general.alignment", 8, text("x")}], [], 0), "alignment"},
      {gguf([], [{"100%n", List.duplicate(1, 9), 0, 0}], 64), "8 axes"},
      {gguf([], [{"100%n", [8], 99, 0}], 64), "type 99"},
      {gguf([], [{"100%n", [8], 2, 0}], 64), "blocks of Q4_0"},
      {gguf([], [{"100%n", [32, 2 ** 60], 8, 0}], 64), "cut short"},
      {gguf([], [float.("a", 8)], 64), "not aligned"},
      {gguf([], [float.("a", 0), float.("a", 32)], 64), "twice"},
      {gguf([], [float.("a", 0), float.("b", 0)], 64), "upon another"},
      {gguf([], [float.("a", 0), float.("b", 64)], 64), "cut short"},
      {gguf([], [float.("a", 32)], 63), "cut short"}
    ]

    for {bytes, message} <- cases do
      assert_refused(write(folder, "x.gguf", bytes), message)
    end

    path = write(folder, "x.gguf", gguf([], [float.("a", 0), float.("b", 32)], 64))
    assert %{"a" => a, "b" => _} = Weights.load(path)
    assert a.shape == {8}
  end

  test "blocks that are no matrix are refused when they are loaded", %{tmp_dir: folder} do
    path = write(folder, "x.gguf", gguf([], [{"w", [32], 2, 0}], 32))
    error = assert_raise Mlx.Error, fn -> Weights.load(path) end
    assert error.kind == :shape
    assert error.message =~ "no matrix"
  end

  test "large weights are read in parts", %{tmp_dir: folder} do
    # Block number n has the scale n, and the integers 0 to 15 twice, of which 8 is taken.
    count = 300_000
    integers = for integer <- 0..15, into: <<>>, do: <<integer::4, integer::4>>
    scale = &<<rem(&1, 1000) / 1::float-little-16>>
    blocks = for block <- 1..count, into: <<>>, do: scale.(block) <> integers
    head = gguf([], [{"w", [32, count], 2, 0}], 0)
    assert %{"w" => w} = folder |> write("x.gguf", head <> blocks) |> Weights.load()
    words = for word <- [0x76543210, 0xFEDCBA98], into: <<>>, do: <<word::little-32>>
    assert Nx.to_binary(w.packed) == :binary.copy(words <> words, count)
    assert Nx.to_binary(w.scales) == for(block <- 1..count, into: <<>>, do: scale.(block))
    assert Nx.to_binary(w.biases) == Nx.to_binary(Nx.multiply(w.scales, -8))
  end

  test "headers are longer than what is read at first", %{tmp_dir: folder} do
    tokens = for at <- 1..60_000, do: "token number #{at} of many"
    array = [<<8::little-32, length(tokens)::little-64>>, Enum.map(tokens, &text/1)]
    path = write(folder, "x.gguf", gguf([{"tokens", 9, array}], [{"a", [8], 0, 0}], 32))
    assert File.stat!(path).size > 1024 * 1024
    weights = Weights.open(path)
    assert weights.metadata["tokens"] == tokens

    assert weights |> Weights.tensor("a") |> Nx.to_binary() ==
             :binary.copy(<<1>>, 32)
  end

  test "mutations are loaded or refused", %{tmp_dir: folder} do
    bytes = File.read!(fixture("model.gguf"))
    # Q5_0 is refused in any case, so its type becomes Q4_0's, whose blocks are smaller.
    {at, _} = :binary.match(bytes, "Q5_0.weight")
    <<head::binary-size(at + 11 + 4 + 16), 6::little-32, tail::binary>> = bytes
    bytes = <<head::binary, 2::little-32, tail::binary>>
    assert fuzz(bytes, Path.join(folder, "x"), 2, 200) in 60..200
  end
end
