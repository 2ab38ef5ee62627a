"""Groups of cases by file name: one patient's or volume's cases together, possibly unrelated cases apart."""

import pytest

from qmsam_core.data.index.groups import case_groups


def partition(names):
    """Group names (file stems of one modality). Returns a sorted list of tuples, one for each group."""
    groups = {}
    for name, key in zip(names, case_groups([f"MR/Set/{name}.npz" for name in names])):
        groups.setdefault(key, []).append(name)
    return sorted(map(tuple, groups.values()))


@pytest.mark.parametrize(
    "together",
    [
        [("2DBox_MR_HVSMR2_10000_130", "2DBox_MR_HVSMR2_10000_79"), ("2DBox_MR_HVSMR2_10001_12",)],
        [
            (
                "2DBox_MR_CDDCESM_P207_L_CM_MLO",
                "2DBox_MR_CDDCESM_P207_L_DM_MLO",
                "2DBox_MR_CDDCESM_mirrored_P207_R_CM_CC",
            ),
            ("2DBox_MR_CDDCESM_P20_L_CM_MLO",),
        ],
        [
            ("2DBox_MR_ICFgrid_3ada_01", "2DBox_MR_ICFgrid_3ada_12"),
            ("2DBox_MR_ICFgrid_b6ca_01", "2DBox_MR_ICFgrid_b6ca_02"),
        ],
        [("2DBox_MR_amos_0004_75", "2DBox_MR_amos_0004_76"), ("2DBox_MR_amos_0006_75",)],
        [("2DBox_MR_case3_slice_012", "2DBox_MR_case3_slice_013"), ("2DBox_MR_case4_z12",)],
        [("2DBox_MR_scan-3", "2DBox_MR_scan-3_flipped"), ("2DBox_MR_scan-4",)],
        [("2DBox_MR_X_sub-01_z1", "3DBox_MR_X_sub-01_T2"), ("2DBox_MR_X_sub-02_z1",)],
    ],
)
def test_cases_of_one_patient_or_volume(together):
    assert partition([name for group in together for name in group]) == sorted(together)


@pytest.mark.parametrize(
    "names",
    [
        ["2DBox_MR_BUSI_10018", "2DBox_MR_BUSI_10025", "2DBox_MR_BUSI_10026"],
        ["2DBox_MR_AMD_0001", "2DBox_MR_AMD_0003"],
        ["2DBox_MR_DRIONSDB_image_004", "2DBox_MR_DRIONSDB_image_013"],
        ["2DBox_MR_BraTS2021_0001", "2DBox_MR_BraTS2021_0002", "2DBox_MR_BraTS2020_0001"],
        [
            "2DBox_MR_ISIC_2018_0001",
            "2DBox_MR_ISIC_2018_0002",
            "2DBox_MR_ISIC_2017_0001",
            "2DBox_MR_ISIC_2017_0002",
        ],
        ["2DBox_MR_KiTS_slice_0001", "2DBox_MR_KiTS_slice_0002"],
        [
            "3DBox_MR_Lesion_000001_02_01_008-023",
            "3DBox_MR_Lesion_000001_02_01_040-050",
            "3DBox_MR_Lesion_000002_02_01_008-023",
        ],
        ["3DBox_MR_STS_001_1", "3DBox_MR_STS_001_2", "3DBox_MR_STS_002_1"],
        ["2DBox_MR_DSB2018_0402a81e7526", "2DBox_MR_DSB2018_0402123412341", "2DBox_MR_DSB2018_0402"],
        [
            "2DBox_MR_pneumonia_1",
            "2DBox_MR_pneumonia-8",
            "2DBox_MR_pneumonia-12",
            "2DBox_MR_covid-19-day-2",
            "2DBox_MR_covid-19-day-3",
        ],
        ["0", "1", "2", "10"],
    ],
)
def test_unrelated_cases_are_not_merged(names):
    assert partition(names) == sorted((name,) for name in names)


def test_a_single_group_falls_back_to_cases():
    assert partition(["2DBox_MR_A_patient7_1", "2DBox_MR_A_patient7_2"]) == [
        ("2DBox_MR_A_patient7_1",),
        ("2DBox_MR_A_patient7_2",),
    ]


def test_the_same_name_in_two_data_sets_is_not_one_patient():
    assert (
        len(
            set(
                case_groups(
                    ["CT/A/2DBox_CT_x_P1_a.npz", "CT/A/2DBox_CT_x_P1_b.npz", "CT/B/2DBox_CT_x_P1_c.npz"]
                )
            )
        )
        == 2
    )
