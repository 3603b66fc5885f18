defmodule Mlx.Weights.NpyTest do
  use ExUnit.Case, async: true
  import Mlx.WeightFiles
  alias Mlx.Weights

  @moduletag :tmp_dir

  defp only(name) do
    [{_, tensor}] = fixture(name) |> Weights.load() |> Map.to_list()
    tensor
  end

  test "arrays of either order of bytes and axes" do
    expected = Nx.iota({2, 3, 4}, type: :f32, backend: Nx.BinaryBackend)
    assert only("fortran.npy").shape == {2, 3, 4}
    assert Nx.to_binary(only("fortran.npy")) == Nx.to_binary(expected)
    assert Nx.to_list(only("big_endian.npy")) == [[0, 1, 2], [3, 4, 5]]
    assert only("big_endian.npy").type == {:s, 32}
    assert Nx.to_list(only("big_endian_complex.npy")) == [Complex.new(1, 2), Complex.new(3, -4)]
    assert only("bfloat16.npy").type == {:bf, 16}
    assert Nx.to_list(only("bfloat16.npy")) == [1.5, -2.5]
  end

  @tag :f64
  test "an array without axes" do
    assert only("scalar.npy").shape == {}
    assert Nx.to_number(only("scalar.npy")) == 2.5
  end

  test "the name is that of the file" do
    weights = Weights.open(fixture("scalar.npy"))
    assert weights.format == :npy
    assert Weights.names(weights) == ["scalar"]
  end

  test "arrays of what is no number are known and refused" do
    for {file, stored} <- [{"text", "<U1"}, {"objects", "|O"}, {"c128", "<c16"}] do
      weights = Weights.open(fixture(file <> ".npy"))
      assert %{type: nil, stored: ^stored} = Weights.info(weights, file)
      error = assert_raise Mlx.Error, fn -> Weights.tensor(weights, file) end
      assert error.kind == :type
    end
  end

  defp npy(text, bytes, version \\ 1) do
    length =
      if version == 1, do: <<byte_size(text)::little-16>>, else: <<byte_size(text)::little-32>>

    <<0x93, "NUMPY", version, 0, length::binary, text::binary, bytes::binary>>
  end

  defp header(descr, shape, order \\ "False") do
    "{'descr': #{descr}, 'fortran_order': #{order}, 'shape': #{shape}, }"
  end

  test "versions and forms of the header", %{tmp_dir: folder} do
    for {text, version} <- [
          {header("'<f4'", "(2,)"), 1},
          {header("'<f4'", "(2,)"), 2},
          {header("'<f4'", "( 2 , )"), 3},
          {"{'shape': (2,), 'descr': '=f4', 'fortran_order': True}\n", 1}
        ] do
      path =
        write(folder, "x.npy", npy(text, <<1.5::float-little-32, 2.5::float-little-32>>, version))

      assert %{"x" => x} = Weights.load(path)
      assert Nx.to_list(x) == [1.5, 2.5]
    end
  end

  test "malformed files are refused", %{tmp_dir: folder} do
    good = header("'<f4'", "(2,)")

    cases = [
      {<<0x93, "NUMPY">>, "none of NumPy's"},
      {<<0x93, "NUMPY", 1, 0, 255, 255, "{">>, "none of NumPy's"},
      {<<0x93, "NUMPY", 2, 0, 2 ** 32 - 1::little-32, "{">>, "none of NumPy's"},
      {npy(good, <<0::64>>, 4), "none of NumPy's"},
      {npy("", ""), "none of NumPy's"},
      {npy("{}", ""), "none of NumPy's"},
      {npy("{'descr': '<f4'}", ""), "none of NumPy's"},
      {npy(good <> "+ open('x')", <<0::64>>), "none of NumPy's"},
      {npy(header("'<f4'", "(2,)", "1"), <<0::64>>), "none of NumPy's"},
      {npy(header("True", "(2,)"), <<0::64>>), "none of NumPy's"},
      {npy(header("''", "(2,)"), <<0::64>>), "none of NumPy's"},
      {npy(header("'<f4'", "'2'"), <<0::64>>), "none of NumPy's"},
      {npy(header("'<f4'", "(-2,)"), <<0::64>>), "none of NumPy's"},
      {npy(header("'<f4'", "(#{String.duplicate("9", 30_000)},)"), <<0::64>>), "none of NumPy's"},
      {npy("{'shape': (2,), 'shape': (2,), 'descr': '<f4'}", <<0::64>>), "none of NumPy's"},
      {npy(header("[('a', '<f4')]", "(2,)"), <<0::64>>), "several fields"},
      {npy(good, <<0::56>>), "has 7 bytes of values, 8 are to be"},
      {npy(good, <<0::72>>), "has 9 bytes of values"},
      {npy(header("'<f4'", "(9999999999, 9999999999)"), <<0::64>>), "has 8 bytes of values"}
    ]

    for {bytes, message} <- cases do
      assert_refused(write(folder, "x.npy", bytes), message)
    end
  end

  test "what is saved is NumPy's, byte for byte", %{tmp_dir: folder} do
    tensor = Nx.tensor(2.5, type: :f64, backend: Nx.BinaryBackend)
    path = Path.join(folder, "scalar.npy")
    assert Weights.save(path, tensor) == :ok
    assert File.read!(path) == File.read!(fixture("scalar.npy"))
    assert_raise ArgumentError, fn -> Weights.save(path, %{"a" => tensor}) end
  end

  test "mutations are loaded or refused", %{tmp_dir: folder} do
    bytes = File.read!(fixture("fortran.npy"))
    assert fuzz(bytes, Path.join(folder, "x"), 1, 300) in 100..299
  end
end
