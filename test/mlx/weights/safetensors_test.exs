defmodule Mlx.Weights.SafetensorsTest do
  use ExUnit.Case, async: true
  import Mlx.WeightFiles
  alias Mlx.{TestDevice, Weights}

  @moduletag :tmp_dir

  # The numbers are those of make.py, beside the file.
  @values %{
    "bool" => {:u8, [1, 0, 1, 1, 0, 0]},
    "uint8" => {:u8, [0, 1, 127, 128, 254, 255]},
    "int8" => {:s8, [0, 1, -1, 127, -128, 5]},
    "uint16" => {:u16, [0, 1, 2, 255, 256, 65535]},
    "int16" => {:s16, [0, 1, -1, 256, 32767, -32768]},
    "uint32" => {:u32, [0, 1, 2, 65536, 2 ** 31, 2 ** 32 - 1]},
    "int32" => {:s32, [0, 1, -1, 65536, 2 ** 31 - 1, -(2 ** 31)]},
    "uint64" => {:u64, [0, 1, 2, 2 ** 32, 2 ** 53 + 1, 2 ** 64 - 1]},
    "int64" => {:s64, [0, 1, -1, 2 ** 53 + 1, 2 ** 63 - 1, -(2 ** 63)]},
    "float16" => {:f16, [0.0, -0.0, 1.5, -2.25, 65504.0, 2.0 ** -24]},
    "float32" => {:f32, [0.0, -0.0, 1.5, -2.25, 3.4e38, 2.0 ** -149]},
    "float64" => {:f64, [0.0, -0.0, 1.5, -2.25, 1.7e308, 5.0e-324]},
    "bfloat16" => {:bf16, [0.0, -0.0, 1.5, -2.5, 448.0, 0.015625]},
    "float8_e4m3fn" => {:f8_e4m3fn, [0.0, -0.0, 1.5, -2.5, 448.0, 0.015625]},
    "float8_e5m2" => {:f8, [0.0, -0.0, 1.5, -2.5, 448.0, 0.015625]}
  }

  test "every type is what Python wrote" do
    weights = Weights.open(fixture("types.safetensors"))
    assert weights.format == :safetensors
    assert weights.metadata == %{"format" => "np", "note" => "made by Python"}

    for name <- f64(), do: TestDevice.assert_f64_refused(fn -> Weights.tensor(weights, name) end)

    for {name, {type, values}} <- @values, TestDevice.type?(type) do
      tensor = Weights.tensor(weights, name)
      assert tensor.data.device == TestDevice.device()
      assert Weights.tensor(weights, name, device: :cpu).data.device == :cpu
      expected = Nx.tensor(values, type: type, backend: Nx.BinaryBackend) |> Nx.reshape({2, 3})
      assert {tensor.type, tensor.shape} == {expected.type, expected.shape}
      assert Nx.to_binary(tensor) == Nx.to_binary(expected), name
    end

    complex = Weights.tensor(weights, "complex64")
    assert complex.type == {:c, 64}
    assert Enum.at(Nx.to_flat_list(complex), 3) == Complex.new(-3.5, -4.25)
    assert weights |> Weights.tensor("scalar") |> Nx.to_number() == 2.5
    assert weights |> Weights.tensor("100%s of %n, ü") |> Nx.to_list() == [0, 1, 2, 3]
  end

  test "tensors that Mlx can't hold are known and refused one by one" do
    weights = Weights.open(fixture("types.safetensors"))
    assert %{type: nil, stored: "F8_E8M0", shape: {4}} = Weights.info(weights, "scale")
    assert %{shape: {0, 3}, byte_size: 0} = Weights.info(weights, "empty")

    for {name, kind} <- [{"scale", :type}, {"empty", :shape}] do
      error = assert_raise Mlx.Error, fn -> Weights.tensor(weights, name) end
      assert error.kind == kind
      assert error.message =~ inspect(name)
    end

    names = held(weights) -- ["scale", "empty"]
    loaded = Weights.load(weights, only: names)
    assert Enum.sort(Map.keys(loaded)) == Enum.sort(names)
    refused = for name <- Weights.names(weights), name not in names, do: name
    assert Enum.sort(["scale", "empty" | f64()]) == Enum.sort(refused)
  end

  # What the device lacks of the file.
  defp f64, do: if(TestDevice.f64?(), do: [], else: ["float64"])

  @entry %{dtype: "F32", shape: [2], data_offsets: [0, 8]}

  test "malformed headers are refused", %{tmp_dir: folder} do
    cases = [
      {"", "is no file of"},
      {<<1, 2, 3>>, "is no file of"},
      {<<2 ** 63::little-64>>, "is no file of"},
      {<<100_000_001::little-64>>, "is no file of"},
      {<<100::little-64, "{}">>, "cut short"},
      {safetensors("", 0), "is no JSON"},
      {safetensors("[]", 0), "is no JSON object"},
      {safetensors("{} {}", 0), "more than one value"},
      {safetensors(~s({"a":1e999}), 0), "is no JSON"},
      {safetensors(~s({"a":[[[[[]]]]]}), 0), "is nested"},
      {safetensors(~s({"a":#{String.duplicate("9", 5000)}}), 0), "a long number"},
      {safetensors(~s({"a":[#{String.duplicate("1,", 5000)}1]}), 0), "a long array"},
      {safetensors(~s({"a":{},"a":{}}), 0), "a name twice"},
      {safetensors(<<"{\"", 255, "\":1}">>, 0), "is no JSON"},
      {safetensors(%{a: 1}, 8), "tensor \"a\""},
      {safetensors(%{__metadata__: %{a: 1}}, 0), "something else than strings"},
      {safetensors(%{__metadata__: []}, 0), "something else than strings"}
    ]

    for {bytes, message} <- cases do
      assert_refused(write(folder, "x.safetensors", bytes), message)
    end
  end

  test "entries that don't fit the file are refused", %{tmp_dir: folder} do
    wrong = [
      %{@entry | dtype: "F99"},
      %{@entry | dtype: nil},
      %{@entry | shape: [3]},
      %{@entry | shape: [-2]},
      %{@entry | shape: [2.0]},
      %{@entry | shape: 2},
      %{@entry | shape: "2"},
      %{@entry | shape: [2 ** 62, 4]},
      %{@entry | data_offsets: [8, 0]},
      %{@entry | data_offsets: [-8, 0]},
      %{@entry | data_offsets: [0, 8, 8]},
      %{@entry | data_offsets: "08"},
      Map.delete(@entry, :shape)
    ]

    for entry <- wrong do
      path = write(folder, "x.safetensors", safetensors(%{"100%s" => entry}, 8))
      assert_refused(path, "tensor \"100%s\"")
    end

    long = String.duplicate("%n", 100_000)
    path = write(folder, "x.safetensors", safetensors(%{long => hd(wrong)}, 8))
    assert byte_size(assert_refused(path, "%n").message) < 2000
  end

  test "tensors that overlap, leave gaps or go beyond the file are refused", %{tmp_dir: folder} do
    other = %{@entry | data_offsets: [8, 16]}

    cases = [
      {%{a: @entry, b: @entry}, 8, "lies not after"},
      {%{a: @entry, b: %{@entry | data_offsets: [4, 12]}}, 12, "lies not after"},
      {%{a: @entry, b: %{@entry | data_offsets: [12, 20]}}, 20, "lies not after"},
      {%{a: other}, 16, "lies not after"},
      {%{a: @entry, b: other}, 15, "cut short"},
      {%{a: @entry, b: other}, 17, "belong to no tensor"},
      {%{}, 1, "belong to no tensor"}
    ]

    for {header, bytes, message} <- cases do
      assert_refused(write(folder, "x.safetensors", safetensors(header, bytes)), message)
    end

    path = write(folder, "x.safetensors", safetensors(%{a: @entry, b: other}, 16))
    assert %{"a" => _, "b" => _} = Weights.load(path)
  end

  test "a header of nothing is a file of nothing", %{tmp_dir: folder} do
    path = write(folder, "x.safetensors", safetensors("{}   ", 0))
    assert Weights.load(path) == %{}
    path = write(folder, "x.safetensors", safetensors(~s({"__metadata__":null}), 0))
    assert Weights.open(path).metadata == %{}
  end

  test "mutations are loaded or refused", %{tmp_dir: folder} do
    bytes = File.read!(fixture("types.safetensors"))
    refused = fuzz(bytes, Path.join(folder, "x"), 1, 300)
    assert refused in 200..300
  end

  @tag :soak
  @tag timeout: :infinity
  test "mutations are loaded or refused, for long", %{tmp_dir: folder} do
    names = ~w(types.safetensors model.gguf stored.npz deflated.npz fortran.npy)

    assert soak(for(name <- names, do: {name, File.read!(fixture(name))}), folder, soak_time()) >
             1
  end
end
