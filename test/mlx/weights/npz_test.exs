defmodule Mlx.Weights.NpzTest do
  use ExUnit.Case, async: true
  import Mlx.WeightFiles
  alias Mlx.Weights

  @moduletag :tmp_dir

  test "stored and deflated archives of every type are what Python wrote" do
    expected = Weights.open(fixture("types.safetensors"))

    for file <- ["stored.npz", "deflated.npz"] do
      weights = Weights.open(fixture(file))
      assert weights.format == :npz
      assert hd(Weights.names(weights)) == "bool"

      for name <- held(weights) -- ["long"] do
        tensor = Weights.tensor(weights, name)
        other = Weights.tensor(expected, name)
        assert {tensor.type, tensor.shape} == {other.type, other.shape}
        assert Nx.to_binary(tensor) == Nx.to_binary(other)
      end
    end

    assert fixture("deflated.npz") |> Weights.open() |> Weights.tensor("long") |> Nx.to_list() ==
             Enum.to_list(0..2999)
  end

  test "what is saved is a zip file of NumPy's arrays", %{tmp_dir: folder} do
    path = Path.join(folder, "x.npz")
    tensors = %{"ä/b %s" => Nx.iota({2, 3}, type: :s16), "c" => Nx.tensor(1.5)}
    assert Weights.save(path, tensors) == :ok
    assert {:ok, files} = :zip.unzip(File.read!(path), [:memory])
    assert [{_, first}, {~c"c.npy", second}] = Enum.sort_by(files, &elem(&1, 0), :desc)
    assert binary_part(first, byte_size(first) - 12, 12) == Nx.to_binary(tensors["ä/b %s"])
    assert rem(byte_size(first) - 12, 64) == 0
    assert first =~ "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }"
    assert second =~ "{'descr': '<f4', 'fortran_order': False, 'shape': (), }"
    loaded = Weights.load(path)
    for {name, tensor} <- tensors, do: assert(Nx.to_binary(loaded[name]) == Nx.to_binary(tensor))
  end

  test "members of more than four gigabytes have large sizes" do
    size = 5_000_000_000
    {local, line} = Weights.Npz.member("a.npy", 7, size, 6_000_000_000)
    sizes = <<size::little-64, size::little-64>>

    assert <<"PK", 3, 4, _::112, 0xFFFFFFFFFFFFFFFF::64, 5::little-16, 20::little-16, "a.npy",
             rest::binary>> =
             local

    assert rest == <<1::little-16, 16::little-16>> <> sizes

    assert <<"PK", 1, 2, _::128, 0xFFFFFFFFFFFFFFFF::64, 5::little-16, 28::little-16,
             rest::binary>> = line

    assert <<_::80, 0xFFFFFFFF::32, "a.npy", 1::little-16, 24::little-16, ^sizes::binary-16,
             place::64>> =
             rest

    assert <<place::64>> == <<6_000_000_000::little-64>>
    assert byte_size(Weights.Npz.ending(1, 10, 100)) == 22
    assert byte_size(Weights.Npz.ending(70_000, 10, 100)) == 22 + 56 + 20
  end

  defp archive(members) do
    {:ok, {_, bytes}} = :zip.zip(~c"x.npz", members, [:memory])
    bytes
  end

  defp npy(count) do
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (#{count},), }"
    <<0x93, "NUMPY", 1, 0, byte_size(header)::little-16, header::binary>>
  end

  # Replaces all of some bytes.
  defp patch(bytes, from, to), do: :binary.replace(bytes, from, to, [:global])

  test "bombs, lies and overlaps are refused", %{tmp_dir: folder} do
    zeros = :binary.copy(<<0>>, 1_000_000)
    good = archive([{~c"a.npy", npy(1_000_000) <> zeros}])
    size = byte_size(npy(1_000_000)) + 1_000_000
    path = write(folder, "x.npz", good)
    assert %{"a" => _} = Weights.load(path)
    crc = <<:erlang.crc32(npy(1_000_000) <> zeros)::little-32>>
    huge = npy("40000,100000")
    size_of_huge = byte_size(huge) + 4_000_000_000
    liar = archive([{~c"a.npy", huge <> zeros}])
    lie = <<byte_size(huge) + 1_000_000::little-32>>

    cases = [
      {archive([{~c"a.npy", npy("40000,100000") <> zeros}]), "bytes of values"},
      {archive([{~c"a.npy", npy(1000) <> zeros}]), "bytes of values"},
      {archive([{~c"a.txt", "text"}]), "none of NumPy's"},
      {archive([{~c"a.npy", ""}]), "none of NumPy's"},
      # Sizes that the directory and the array agree on, and the bytes don't have.
      {patch(liar, lie, <<size_of_huge::little-32>>), "too few"},
      {patch(good, crc, <<1, 2, 3, 4>>), "checksum"},
      {patch(good, <<size::little-32>>, <<size - 1::little-32>>), "bytes of values"},
      {patch(good, "PK\x01\x02", "PK\x01\x03"), "broken"},
      {patch(good, "PK\x05\x06", "PK\x05\x07"), "no directory"},
      {binary_part(good, 0, byte_size(good) - 1) |> patch("PK\x05\x06", "PK\x05\x07"),
       "cut short"},
      {binary_part(good, 0, div(byte_size(good), 2)), "cut short"},
      {shifted(good), "place where it is not"}
    ]

    for {bytes, message} <- cases do
      assert_refused(write(folder, "x.npz", bytes), message)
    end
  end

  # The directory says another place of the member.
  defp shifted(bytes) do
    {at, 4} = :binary.match(bytes, "PK\x01\x02")
    <<head::binary-size(at + 42), _::32, tail::binary>> = bytes
    <<head::binary, 3::little-32, tail::binary>>
  end

  test "members that share bytes, and names that come twice, are refused", %{tmp_dir: folder} do
    one = archive([{~c"a.npy", npy(3) <> "abc"}])
    {at, 4} = :binary.match(one, "PK\x01\x02")
    {ending, 4} = :binary.match(one, "PK\x05\x06")
    local = binary_part(one, 0, at)
    line = binary_part(one, at, ending - at)
    length = 2 * byte_size(line)
    twice = fn lines -> [local, lines, Weights.Npz.ending(2, length, at)] end
    other = patch(line, "a.npy", "b.npy")
    assert_refused(write(folder, "x.npz", twice.([line, other])), "lie upon each other")
    assert_refused(write(folder, "x.npz", twice.([line, line])), "twice")
  end

  test "names lead nowhere", %{tmp_dir: folder} do
    path = write(folder, "x.npz", archive([{~c"../../%s%n.npy", npy(3) <> "abc"}]))
    assert [{"../../%s%n", tensor}] = path |> Weights.load() |> Map.to_list()
    assert Nx.to_binary(tensor) == "abc"
    assert File.ls!(folder) == ["x.npz"]
  end

  test "mutations are loaded or refused", %{tmp_dir: folder} do
    for name <- ["stored.npz", "deflated.npz"] do
      assert fuzz(File.read!(fixture(name)), Path.join(folder, "x"), 1, 150) in 60..150
    end
  end
end
